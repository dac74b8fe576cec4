"""A job's events as server-sent events (WHATWG HTML, 9.2), a bounded number of readers for each key."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any, cast

import orjson
from fastapi import Request
from starlette.responses import StreamingResponse

from service.auth import Caller
from service.problems import FieldError, Problem
from workers.client import JobEvent, JobsClient, QueueUnavailableError

READERS_PER_KEY = 32
RECONNECT_MS = 2000
KEEP_ALIVE = b": keep-alive\n\n"
_EVENT_ID = re.compile(r"\d{1,20}-\d{1,20}")


def last_event_id(request: Request) -> str:
    """Where to resume: the header ``Last-Event-ID``, or the beginning.

    Raises:
        Problem: 400 for what is not the id of an event.
    """
    given = request.headers.get("last-event-id", "").strip() or "0-0"
    if not _EVENT_ID.fullmatch(given):
        errors = [FieldError("Last-Event-ID", "not the id of an event")]
        raise Problem(400, "the Last-Event-ID is not valid", errors=errors, code="invalid_header")
    return given


class EventStreams:
    """Counts the open streams of each key.

    Args:
        most: open streams that a key may have.
    """

    def __init__(self, most: int = READERS_PER_KEY) -> None:
        self._most = most
        self._open: Counter[str] = Counter()

    def respond(self, jobs: JobsClient, job_id: str, last_id: str, caller: Caller) -> StreamingResponse:
        """Stream the events of a job after ``last_id`` until its final status.

        Raises:
            Problem: 429 the key has too many streams open.
        """
        if self._open[caller.id] >= self._most:
            headers = {"Retry-After": "10"}
            raise Problem(
                429, f"at most {self._most} event streams for a key", headers=headers, code="too_many_streams"
            )
        return event_stream(self._stream(jobs, job_id, last_id, caller.id))

    async def _stream(self, jobs: JobsClient, job_id: str, last_id: str, key: str) -> AsyncIterator[bytes]:
        self._open[key] += 1
        try:
            yield b"retry: %d\n\n" % RECONNECT_MS
            async with aclosing(cast("AsyncGenerator[JobEvent | None]", jobs.events(job_id, last_id))) as events:
                async for event in events:
                    yield KEEP_ALIVE if event is None else encode_event(event.event, event.data, event.id)
        except QueueUnavailableError:
            # The status line is sent; the client reconnects with the last id that it saw.
            yield b": the queue cannot be reached\n\n"
        finally:
            self._open[key] -= 1
            if not self._open[key]:
                del self._open[key]


def event_stream(events: AsyncIterator[bytes]) -> StreamingResponse:
    """The answer that sends ``events`` as they come, past proxies that would gather them."""
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return StreamingResponse(events, headers=headers, media_type="text/event-stream")


def encode_event(name: str, data: Any, event_id: str | None = None) -> bytes:
    """One event with JSON data, and an id where a reader can go on after it."""
    head = b"" if event_id is None else b"id: %s\n" % event_id.encode()
    return head + b"event: %s\ndata: %s\n\n" % (name.encode(), orjson.dumps(data))


def streams_of(request: Request) -> EventStreams:
    """The application's streams."""
    state = request.app.state
    if not hasattr(state, "event_streams"):
        state.event_streams = EventStreams()
    streams: EventStreams = state.event_streams
    return streams
