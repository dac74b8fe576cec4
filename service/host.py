"""Where models live: loads versions, keeps the most recently used, and predicts. The one importer of torch.

A Ray Serve replica and the in-process backend run this same class.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import structlog
import torch
from pydantic import BaseModel

from models.core.checkpoint import CheckpointConfig, CheckpointError
from models.core.devices import autocast, pick_device
from models.core.inputs import ClassSpec, ImageSpec, InputError, TextSpec, VectorSpec
from models.core.method import Method, MethodError
from models.core.outputs import Draw
from models.core.registry import MethodEntry, Registry, UnknownMethodError
from models.core.store import BlobStore
from models.core.versions import UnknownVersionError, Versions
from service import tracing
from service.calls import Call, Failed, Refused, Reply
from service.settings import Settings

log = structlog.get_logger("deepnight.host")

MOST_DEFECTS = 24
BRIEF_S = 0.010


@dataclass
class Loaded:
    """A version in memory."""

    entry: MethodEntry
    method: Method[Any, Any]
    revision: float
    seconds: float = 0.0
    reported: bool = False
    params: dict[bytes, BaseModel] = field(default_factory=dict)
    brief_rows: dict[bytes, int] = field(default_factory=dict)

    def note(self, call: Call, seconds: float) -> None:
        """Remember how many rows of these parameters are predicted in less than :data:`BRIEF_S`.

        Only arrays: their rows are of one size, so that the next call takes as long as the last.
        """
        if isinstance(call.inputs, np.ndarray):
            rows, known = len(call.inputs), self.brief_rows.get(call.params, 0)
            self.brief_rows[call.params] = max(known, rows) if seconds < BRIEF_S else min(known, rows - 1)

    def parse(self, raw: bytes) -> BaseModel:
        """The parameters of a call, parsed once for each spelling."""
        known = self.params.get(raw)
        if known is None:
            if len(self.params) >= 256:
                self.params.clear()
                self.brief_rows.clear()
            known = self.params[raw] = self.entry.params.model_validate_json(raw)
        return known


class ModelHost:
    """Versions of methods in memory, least recently used out."""

    def __init__(self, settings: Settings) -> None:
        torch.set_num_threads(settings.torch_threads)
        registry = Registry(*settings.method_roots)
        cache = settings.home.resolve() / "cache" / "versions"
        self._versions = Versions(registry, BlobStore(settings.store), cache)
        self._device = pick_device(settings.device)
        self._precision = settings.precision
        self._capacity = settings.models_per_replica
        self._loaded: OrderedDict[str, Loaded] = OrderedDict()
        self._lock = threading.Lock()
        self._loading: dict[str, threading.Lock] = {}
        self._evicted: list[str] = []

    def call(self, call: Call) -> Reply:
        """Predict one batch; what fails is told in the reply, item by item where that is possible."""
        with structlog.contextvars.bound_contextvars(requests=call.request_ids), self._traced(call):
            return self._call(call)

    def brief(self, call: Call) -> bool:
        """Whether ``call`` takes so little time that a thread for it would cost more than it saves."""
        loaded = self._loaded.get(call.model)
        if loaded is None or loaded.revision < call.revision or not isinstance(call.inputs, np.ndarray):
            return False
        return len(call.inputs) <= loaded.brief_rows.get(call.params, 0)

    def stream(self, call: Call, previews: int, gone: Callable[[], bool]) -> Iterator[Reply]:
        """Predict one batch, with at most ``previews`` previews, evenly spaced, before the reply.

        Args:
            gone: whether nobody waits any more; the work ends at the method's next preview.
        """
        with structlog.contextvars.bound_contextvars(requests=call.request_ids), self._traced(call):
            yield from self._stream(call, previews, gone)

    def _call(self, call: Call) -> Reply:
        loaded = self._open(call)
        if isinstance(loaded, Reply):
            return loaded
        started = time.perf_counter()
        outputs = self._predict(loaded, call.inputs, loaded.parse(call.params))
        reply = self._reply(loaded, _pack(outputs), started)
        loaded.note(call, reply.seconds)
        return reply

    def _stream(self, call: Call, previews: int, gone: Callable[[], bool]) -> Iterator[Reply]:
        loaded = self._open(call)
        if isinstance(loaded, Reply):
            yield loaded
            return
        started, shown = time.perf_counter(), 0
        outputs: Sequence[Any] = []
        try:
            with torch.inference_mode(), autocast(self._device, self._precision):
                for outputs in loaded.method.stream(call.inputs, loaded.parse(call.params)):
                    if gone():
                        return
                    fraction = outputs[0].details.get("fraction", 1.0)
                    if fraction < 1 and shown < previews and fraction >= (shown + 1) / (previews + 1):
                        shown += 1
                        yield Reply(list(outputs), preview=True)
        except (MethodError, InputError) as error:
            outputs = [Refused(str(error))] * len(call.inputs)
        except Exception:
            log.exception("a stream failed", model=loaded.entry.slug, inputs=len(call.inputs))
            outputs = [Failed("the method failed on this input")] * len(call.inputs)
        yield self._reply(loaded, list(outputs), started)

    def _open(self, call: Call) -> Loaded | Reply:
        """The version that ``call`` names, or the reply that says why it cannot be had."""
        try:
            return self.get(call.model, call.revision)
        except (CheckpointError, UnknownMethodError, UnknownVersionError) as error:
            return Reply(failure=f"it cannot be loaded: {error}")
        except Exception:
            log.exception("loading failed", model=call.model)
            return Reply(failure="it cannot be loaded")

    def _reply(self, loaded: Loaded, outputs: Any, started: float) -> Reply:
        seconds = time.perf_counter() - started
        load_seconds, loaded.reported = (None if loaded.reported else loaded.seconds), True
        return Reply(outputs, seconds=seconds, load_seconds=load_seconds, evicted=self._take_evicted())

    def _traced(self, call: Call) -> AbstractContextManager[None]:
        return tracing.call(call.model, len(call.inputs), call.traces) if call.traces else nullcontext()

    def get(self, model: str, revision: float) -> Loaded:
        """The version ``model`` (``slug@version``), loaded and warm.

        Args:
            revision: when the version was made, at least: a name can be deleted and given again.

        Raises:
            CheckpointError: its checkpoint is damaged.
            UnknownMethodError, UnknownVersionError: there is none.
        """
        with self._lock:
            found = self._find(model, revision)
            if found is not None:
                return found
            loading = self._loading.setdefault(model, threading.Lock())
        with loading:
            with self._lock:
                found = self._find(model, revision)
            return found or self._keep(model, self._load(model))

    def _find(self, model: str, revision: float) -> Loaded | None:
        found = self._loaded.get(model)
        if found is None or found.revision < revision:
            return None
        self._loaded.move_to_end(model)
        return found

    def _keep(self, model: str, loaded: Loaded) -> Loaded:
        with self._lock:
            self._loaded[model] = loaded
            self._loaded.move_to_end(model)
            self._loading.pop(model, None)
            while len(self._loaded) > self._capacity:
                self._evicted.append(self._loaded.popitem(last=False)[0])
        return loaded

    def _take_evicted(self) -> tuple[str, ...]:
        with self._lock:
            evicted, self._evicted = self._evicted, []
            return tuple(model for model in evicted if model not in self._loaded)

    def _load(self, model: str) -> Loaded:
        started = time.perf_counter()
        version = self._versions.resolve(model)
        checkpoint = self._versions.checkpoint(version)
        method = version.entry.method.load(checkpoint, self._device)
        loaded = Loaded(version.entry, method, version.record.created_at)
        example = _example(checkpoint.config)
        if example is not None:
            self._run(loaded, example, version.entry.params())
        loaded.seconds = time.perf_counter() - started
        log.info("model loaded", model=model, seconds=round(loaded.seconds, 3), device=str(self._device))
        return loaded

    def _run(self, loaded: Loaded, inputs: Any, params: BaseModel) -> Sequence[Any]:
        with torch.inference_mode(), autocast(self._device, self._precision):
            return loaded.method.predict(inputs, params)

    def _predict(self, loaded: Loaded, inputs: Any, params: BaseModel) -> Sequence[Any]:
        """Predict, and when the batch fails, its halves: a bad item fails alone.

        A method that is broken as a whole is not asked about every item: enough defects end the search.
        """
        parts, outputs, defects = [inputs], list[Any](), 0
        while parts:
            part = parts.pop()
            try:
                found = self._run(loaded, part, params)
                if part is inputs:
                    return found
                outputs.extend(found)
                continue
            except (MethodError, InputError) as error:
                if len(part) == 1:
                    outputs.append(Refused(str(error)))
                    continue
            except Exception:
                defects += 1
                if len(part) == 1 or defects > MOST_DEFECTS:
                    log.exception("prediction failed", model=loaded.entry.slug, inputs=len(part))
                    outputs.extend([Failed("the method failed on this input")] * len(part))
                    continue
            half = len(part) // 2
            parts += [part[half:], part[:half]]
        return outputs


def _example(config: CheckpointConfig) -> Any:
    match config.input:
        case ImageSpec() as spec:
            return np.zeros((1, *spec.shape), dtype=np.uint8)
        case VectorSpec() as spec:
            return np.zeros((1, spec.size), dtype=np.float32)
        case TextSpec():
            return ["a text"]
        case ClassSpec():
            return [Draw(0 if config.class_names else None, 0)]
        case _:
            return None


def _pack(outputs: Any) -> Any:
    """Outputs of one shape as one array, which crosses processes without a copy for each."""
    if isinstance(outputs, np.ndarray):
        return outputs
    if outputs and all(isinstance(o, np.ndarray) and o.shape == outputs[0].shape for o in outputs):
        return np.stack(outputs)
    return list(outputs)
