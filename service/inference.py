"""Inference as routes see it: inputs in, outputs out, whatever runs behind."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

import structlog
from pydantic import BaseModel

from models.core.versions import Version, Versions
from service import tracing
from service.calls import Backend, Call, CallFailedError, Failed, Refused, Reply, stack
from service.coalescer import Coalescer, OverloadedError
from service.deployments import calls_in_flight_of, replicas_of
from service.inference_errors import DeadlineError, InputFailedError, ModelFailedError, NotReadyError
from service.inprocess import InProcessBackend
from service.metrics import Metrics
from service.notes import Notes
from service.raybackend import RayBackend
from service.settings import Settings

__all__ = [
    "DeadlineError",
    "Inference",
    "InputFailedError",
    "ModelFailedError",
    "NotReadyError",
    "OverloadedError",
]

log = structlog.get_logger("deepnight.inference")


@dataclass(frozen=True, eq=False)
class Previews:
    """What a caller wants to see before the outputs.

    Attributes:
        wanted: previews of each input at most.
        show: called with an input's position and its preview.
    """

    wanted: int
    show: Callable[[int, Any], None]


@dataclass(frozen=True, eq=False)
class _Streamed:
    """A call that shares no batch: its parameters, its inputs' positions by identity, and who looks on."""

    params: bytes
    positions: dict[int, int]
    previews: Previews


class Inference:
    """Predicts with any version, coalescing what waits for the same one.

    Args:
        versions: where versions are looked up when a call names them by id.
    """

    def __init__(self, settings: Settings, versions: Versions, metrics: Metrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._backend: Backend = (
            InProcessBackend(settings)
            if settings.backend == "in-process"
            else RayBackend(settings, versions.registry, metrics.replica_deaths.inc)
        )
        self._coalescer = Coalescer(self._call, queue_limit=settings.queue_limit)
        self._started: asyncio.Task[None] | None = None
        self._versions: dict[str, Version] = {}
        self._states: dict[str, str] = {}
        self._defaults: dict[str, bytes] = {}
        self._streamed: dict[bytes, _Streamed] = {}
        self.notes = Notes()
        self._early = 0

    async def start(self) -> None:
        """Begin to make the backend ready; returns at once."""
        self._started = asyncio.create_task(self._start())
        self._started.add_done_callback(_log_failure)

    async def stop(self) -> None:
        """Cancel what is in flight and end the backend."""
        await self._coalescer.close()
        if self._started is not None:
            self._started.cancel()
            await asyncio.gather(self._started, return_exceptions=True)
            await self._backend.stop()

    def ready(self) -> bool:
        """Whether the backend answers calls."""
        return self._started is not None and self._started.done() and _succeeded(self._started)

    def failure(self) -> BaseException | None:
        """Why the backend could not start, once that is known."""
        if self._started is None or not self._started.done() or self._started.cancelled():
            return None
        return self._started.exception()

    def states(self) -> dict[str, str]:
        """State of each version that was ever called, by id; any other is cold."""
        return dict(self._states)

    def waiting(self) -> dict[str, int]:
        """Inputs that wait for a replica, by id of the version."""
        return {model: self._coalescer.waiting(model) for model in self._states}

    async def replicas(self) -> Mapping[str, Mapping[str, int]]:
        """Number of replicas of each deployment by state; empty before the backend is ready."""
        return await self._backend.replicas() if self.ready() else {}

    async def predict(
        self,
        version: Version,
        inputs: Sequence[Any],
        params: BaseModel,
        *,
        deadline: float,
        request_id: str = "",
        previews: Previews | None = None,
    ) -> list[Any]:
        """One output an input, in order.

        Args:
            inputs: pictures fitted to the version's spec, vectors, texts, or :class:`~models.core.outputs.Sides`.
            deadline: on the clock of ``time.monotonic``.
            request_id: names the request in the replica's logs.
            previews: what to show before; such a call has a slot of its own and shares no batch.

        Raises:
            OverloadedError: too many inputs wait for the model.
            NotReadyError: the backend is not there by the deadline, or too many inputs wait for it already.
            DeadlineError: the outputs are not there by the deadline; the work is cancelled.
            InputFailedError: the model refuses inputs.
            ModelFailedError: the model cannot answer.
        """
        started, outcome = time.perf_counter(), "failed"
        key = self._key(version, params, inputs, previews)
        try:
            outputs = await self._outputs(version, key, inputs, deadline, request_id)
            outcome = "ok"
        except InputFailedError:
            outcome = "refused"
            raise
        except TimeoutError:
            outcome = "deadline"
            raise DeadlineError from None
        except OverloadedError:
            outcome = "overloaded"
            raise
        except CallFailedError as error:
            raise ModelFailedError(str(error)) from error
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        finally:
            self._streamed.pop(key, None)
            self._metrics.predicted(version.id, outcome, len(inputs), time.perf_counter() - started)
        return outputs

    async def _outputs(
        self, version: Version, key: bytes, inputs: Sequence[Any], deadline: float, request_id: str
    ) -> list[Any]:
        """Wait for the backend, go through the coalescer, and look at what came back."""
        if not self.ready():
            await self._wait_ready(deadline, len(inputs))
        self._versions[version.id] = version
        outputs = await self._coalescer.submit(
            version.id,
            key,
            inputs,
            version.entry.card.max_batch,
            replicas=replicas_of(version.entry, self._settings),
            calls_in_flight=calls_in_flight_of(version.entry, self._settings),
            tag=request_id,
            seconds=deadline - time.monotonic(),
        )
        refused = [(i, output.message) for i, output in enumerate(outputs) if type(output) is Refused]
        if refused:
            raise InputFailedError(refused)
        _raise_failed(outputs)
        return outputs

    def _key(self, version: Version, params: BaseModel, inputs: Sequence[Any], previews: Previews | None) -> bytes:
        """What a batch must share: the parameters, or for a call with previews something that only it has."""
        encoded = self._encode(version, params)
        if previews is None:
            return encoded
        streamed = _Streamed(encoded, {id(item): i for i, item in enumerate(inputs)}, previews)
        self._streamed[key := b"stream %d" % id(streamed)] = streamed
        return key

    async def _start(self) -> None:
        await self._backend.start()
        # What is there now stays; the collector need not walk all of Ray's modules during every burst of requests.
        gc.collect()
        gc.freeze()

    def _encode(self, version: Version, params: BaseModel) -> bytes:
        """Parameters as the bytes that a batch must share; those of requests that send none are encoded once."""
        if params is not version.entry.default_params:
            return params.model_dump_json().encode()
        slug = version.entry.slug
        if slug not in self._defaults:
            self._defaults[slug] = params.model_dump_json().encode()
        return self._defaults[slug]

    async def _wait_ready(self, deadline: float, inputs: int) -> None:
        """Wait for the backend's start, no more inputs than may wait for a model."""
        if self._started is None or self._early >= self._settings.queue_limit:
            raise NotReadyError(2)
        self._early += inputs
        try:
            await asyncio.wait({self._started}, timeout=max(0.0, deadline - time.monotonic()))
        finally:
            self._early -= inputs
        if not self.ready():
            raise NotReadyError(5)

    async def _call(self, model: str, params: bytes, items: list[Any], tags: tuple[str, ...]) -> Sequence[Any]:
        """One call of the backend, for the coalescer."""
        self._metrics.batch_of(model).observe(len(items))
        if self._states.get(model) != "ready":
            self._states[model] = "loading"
        version = self._versions[model]
        streamed = self._streamed.get(params)
        try:
            if streamed is None:
                call = Call(model, version.record.created_at, params, stack(items), tags, tracing.contexts(tags))
                reply = await self._backend.call(version, call)
            else:
                reply = await self._stream(version, streamed, items, tags)
        except BaseException:
            if self._states[model] == "loading":
                self._states[model] = "cold"
            raise
        self._metrics.answered_by_replica(reply, model)
        self.notes.keep(tags, len(items), reply.seconds)
        self._states[model] = "ready" if reply.failure is None else "failed"
        self._states.update(dict.fromkeys(reply.evicted, "cold"))
        if reply.failure is not None:
            raise CallFailedError(reply.failure)
        outputs: Sequence[Any] = reply.outputs
        return outputs

    async def _stream(self, version: Version, streamed: _Streamed, items: list[Any], tags: tuple[str, ...]) -> Reply:
        call = Call(version.id, version.record.created_at, streamed.params, stack(items), tags, tracing.contexts(tags))
        replies = self._backend.stream(version, call, streamed.previews.wanted)
        async with aclosing(replies) as stream:
            async for reply in stream:
                if not reply.preview:
                    return reply
                for item, output in zip(items, reply.outputs, strict=True):
                    streamed.previews.show(streamed.positions[id(item)], output)
        raise CallFailedError("its replica sent no outputs")


def _raise_failed(outputs: Sequence[Any]) -> None:
    for output in outputs:
        if type(output) is Failed:
            raise ModelFailedError(output.message)


def _succeeded(task: asyncio.Task[None]) -> bool:
    return not task.cancelled() and task.exception() is None


def _log_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        log.error("the inference backend could not start", exc_info=task.exception())
