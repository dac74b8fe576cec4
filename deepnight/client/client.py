"""The two clients: they perform flows, repeat what may be repeated, and stream events."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from functools import wraps
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import httpx

from deepnight.client.answers import Event, Job
from deepnight.client.calls import Call, Flow, Pause, retried
from deepnight.client.errors import ApiError
from deepnight.client.flows import predicting, queueing, uploading, versioning
from deepnight.client.sse import EventReader

P = ParamSpec("P")
T = TypeVar("T")

LOCAL = "http://127.0.0.1:8000"


def _sync(flow: Callable[P, Flow[T]]) -> Callable[Concatenate[Client, P], T]:
    @wraps(flow)
    def method(self: Client, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.perform(flow(*args, **kwargs))

    return method


def _async(flow: Callable[P, Flow[T]]) -> Callable[Concatenate[AsyncClient, P], Coroutine[Any, Any, T]]:
    @wraps(flow)
    async def method(self: AsyncClient, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.perform(flow(*args, **kwargs))

    return method


def _options(base_url: str, api_key: str | None, timeout: float) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    return {"base_url": base_url, "headers": headers, "timeout": timeout}


class Client:
    """A synchronous client; safe to use from several threads.

    Args:
        api_key: ``dn_...``; not needed where the service runs on loopback without keys.
        timeout: seconds for connecting and for each read of an answer.
        retries: how often a request is repeated when the service is busy or the connection breaks.

    Raises:
        ApiError: (every call) the service refused the request.
        httpx.TransportError: (every call) it could not be reached.
    """

    def __init__(
        self, base_url: str = LOCAL, *, api_key: str | None = None, timeout: float = 60.0, retries: int = 2
    ) -> None:
        self._http = httpx.Client(**_options(base_url, api_key, timeout))
        self._retries = retries

    embed = _sync(predicting.embed)
    classify = _sync(predicting.classify)
    generate = _sync(predicting.generate)
    summarise = _sync(predicting.summarise)
    prefer = _sync(predicting.prefer)
    distance = _sync(predicting.distance)
    upload = _sync(uploading.upload)
    datasets = _sync(uploading.datasets)
    dataset = _sync(uploading.dataset)
    delete_dataset = _sync(uploading.delete_dataset)
    submit = _sync(queueing.submit)
    job = _sync(queueing.job)
    jobs = _sync(queueing.jobs)
    cancel = _sync(queueing.cancel)
    wait = _sync(queueing.wait)
    result = _sync(queueing.result)
    frame = _sync(queueing.frame)
    download = _sync(queueing.download)
    models = _sync(versioning.models)
    model = _sync(versioning.model)
    set_default = _sync(versioning.set_default)
    delete_model = _sync(versioning.delete_model)

    def events(self, job: str | Job, *, after: str | None = None) -> Iterator[Event]:
        """A job's events as they happen, from the one after ``after`` on; ends with the job. A broken connection is
        taken up where it broke.
        """
        reader = EventReader(job, after)
        while not reader.ended:
            with self._http.stream(**reader.request(), timeout=reader.timeout) as response:
                if response.is_error:
                    response.read()
                    raise ApiError(response)
                try:
                    for line in response.iter_lines():
                        yield from reader.feed(line)
                except (httpx.ReadError, httpx.RemoteProtocolError):
                    time.sleep(1)

    def perform(self, flow: Flow[T]) -> T:
        """Perform the steps of ``flow``."""
        steps = retried(flow, self._retries)
        try:
            step = next(steps)
            while True:
                try:
                    answer = None
                    if isinstance(step, Pause):
                        time.sleep(step.seconds)
                    else:
                        answer = self._attempt(step)
                except Exception as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(answer)
        except StopIteration as stop:
            value: T = stop.value
            return value

    def _attempt(self, call: Call) -> httpx.Response:
        request = self._http.build_request(**call.arguments(), timeout=_patient(self._http.timeout, call))
        if call.save is None:
            return self._http.send(request)
        response = self._http.send(request, stream=True)
        try:
            if response.is_error:
                response.read()
                return response
            with call.save.open("wb") as file:
                for chunk in response.iter_bytes(1 << 20):
                    file.write(chunk)
        finally:
            response.close()
        return response

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncClient:
    """An asynchronous client; the same calls as :class:`Client`, to be awaited."""

    def __init__(
        self, base_url: str = LOCAL, *, api_key: str | None = None, timeout: float = 60.0, retries: int = 2
    ) -> None:
        self._http = httpx.AsyncClient(**_options(base_url, api_key, timeout))
        self._retries = retries

    embed = _async(predicting.embed)
    classify = _async(predicting.classify)
    generate = _async(predicting.generate)
    summarise = _async(predicting.summarise)
    prefer = _async(predicting.prefer)
    distance = _async(predicting.distance)
    upload = _async(uploading.upload)
    datasets = _async(uploading.datasets)
    dataset = _async(uploading.dataset)
    delete_dataset = _async(uploading.delete_dataset)
    submit = _async(queueing.submit)
    job = _async(queueing.job)
    jobs = _async(queueing.jobs)
    cancel = _async(queueing.cancel)
    wait = _async(queueing.wait)
    result = _async(queueing.result)
    frame = _async(queueing.frame)
    download = _async(queueing.download)
    models = _async(versioning.models)
    model = _async(versioning.model)
    set_default = _async(versioning.set_default)
    delete_model = _async(versioning.delete_model)

    async def events(self, job: str | Job, *, after: str | None = None) -> AsyncIterator[Event]:
        """As :meth:`Client.events`."""
        reader = EventReader(job, after)
        while not reader.ended:
            async with self._http.stream(**reader.request(), timeout=reader.timeout) as response:
                if response.is_error:
                    await response.aread()
                    raise ApiError(response)
                try:
                    async for line in response.aiter_lines():
                        for event in reader.feed(line):
                            yield event
                except (httpx.ReadError, httpx.RemoteProtocolError):
                    await asyncio.sleep(1)

    async def perform(self, flow: Flow[T]) -> T:
        """Perform the steps of ``flow``."""
        steps = retried(flow, self._retries)
        try:
            step = next(steps)
            while True:
                try:
                    answer = None
                    if isinstance(step, Pause):
                        await asyncio.sleep(step.seconds)
                    else:
                        answer = await self._attempt(step)
                except (Exception, asyncio.CancelledError) as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(answer)
        except StopIteration as stop:
            value: T = stop.value
            return value

    async def _attempt(self, call: Call) -> httpx.Response:
        request = self._http.build_request(**call.arguments(), timeout=_patient(self._http.timeout, call))
        if call.save is None:
            return await self._http.send(request)
        response = await self._http.send(request, stream=True)
        try:
            if response.is_error:
                await response.aread()
                return response
            with call.save.open("wb") as file:
                async for chunk in response.aiter_bytes(1 << 20):
                    file.write(chunk)
        finally:
            await response.aclose()
        return response

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


def _patient(timeout: httpx.Timeout, call: Call) -> httpx.Timeout:
    """The client's timeout, longer where the service itself is asked to wait."""
    read = None if timeout.read is None else timeout.read + call.patience
    return httpx.Timeout(connect=timeout.connect, write=timeout.write, pool=timeout.pool, read=read)
