"""Generated pictures as server-sent events in the shape of OpenAI's image streams: previews, then the pictures."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from fastapi import Request, Response

from models.core.outputs import Generated
from service.auth import Caller
from service.catalog import Served
from service.events import KEEP_ALIVE, encode_event, event_stream
from service.generating import Generate, picture, size_of, usage
from service.inference import Previews
from service.predicting import predict, reader_of, resolve
from service.problems import Problem, openai_error
from service.schemas.images import GenerationRequest
from service.services import Services

# What is refused at once is answered with its status; once the stream has begun, failures are events.
BEGIN_AFTER_S = 1.0
KEEP_ALIVE_S = 15.0


async def stream_pictures(
    operation: Generate, body: GenerationRequest, request: Request, caller: Caller, services: Services
) -> Response:
    """Answer ``body`` by events. The work ends when the client leaves or the deadline passes.

    Raises:
        Problem: whatever is wrong with the request or the service, as long as nothing was sent.
    """
    served = await resolve(services, body.model, operation, caller)
    params = operation.params(body, served)
    draws = operation.inputs(body, served, reader_of(services, caller))
    stream = _Stream(served)
    previews = Previews(body.partial_images, stream.show)
    work = asyncio.create_task(predict(services, request, served, draws, params, operation.field, previews))
    work.add_done_callback(lambda _: stream.shown.put_nowait(None))
    first = asyncio.create_task(stream.begun.wait())
    try:
        await asyncio.wait({work, first}, timeout=BEGIN_AFTER_S, return_when=asyncio.FIRST_COMPLETED)
        if work.done():
            work.result()
    except BaseException:
        work.cancel()
        raise
    finally:
        first.cancel()
    return event_stream(stream.events(work))


class _Stream:
    """The events of one request."""

    def __init__(self, served: Served) -> None:
        self.shown: asyncio.Queue[tuple[int, Generated] | None] = asyncio.Queue()
        self.begun = asyncio.Event()
        self._served = served
        self._sent: dict[int, float] = {}
        self._counts: dict[int, int] = {}

    def show(self, index: int, preview: Generated) -> None:
        """Queue a preview; those that come again from another replica are dropped."""
        fraction = preview.details["fraction"]
        if fraction > self._sent.get(index, 0.0):
            self._sent[index] = fraction
            self.shown.put_nowait((index, preview))
            self.begun.set()

    async def events(self, work: asyncio.Task[list[Generated]]) -> AsyncIterator[bytes]:
        """Previews as they come, then every picture, or the problem; comments keep the connection open."""
        try:
            while True:
                try:
                    async with asyncio.timeout(KEEP_ALIVE_S):
                        shown = await self.shown.get()
                except TimeoutError:
                    yield KEEP_ALIVE
                    continue
                if shown is None:
                    break
                yield await self._event("image_generation.partial_image", *shown, self._next(shown[0]))
            for index, output in enumerate(await work):
                yield await self._event("image_generation.completed", index, output, {"usage": usage(1)})
        except Problem as problem:
            yield encode_event("error", {"type": "error", "error": openai_error(problem)})
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)

    def _next(self, index: int) -> dict[str, Any]:
        self._counts[index] = self._counts.get(index, -1) + 1
        return {"partial_image_index": self._counts[index]}

    async def _event(self, kind: str, index: int, output: Generated, facts: dict[str, Any]) -> bytes:
        drawn = await asyncio.to_thread(picture, output, self._served)
        data = {
            "type": kind,
            **drawn,
            "index": index,
            "created_at": int(time.time()),
            "size": size_of(self._served),
            "output_format": "png",
            "background": "opaque",
            "quality": "auto",
            **facts,
        }
        return encode_event(kind, data)
