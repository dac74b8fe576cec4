"""Reading a job's event stream, so that a reader who was cut off goes on without a gap or a repetition."""

from __future__ import annotations

import json
import re
from typing import Any

import redis.asyncio

from workers.errors import queue_errors
from workers.records import JobEvent

EVENT_ID = re.compile(r"\d{1,20}-\d{1,20}")
FIRST = "0-0"
_PAGE = 200


async def read_events(reader: redis.asyncio.Redis, job_id: str, after: str, seconds: float) -> list[JobEvent]:
    """Events after the id ``after``; waits up to ``seconds`` for the first one.

    Raises:
        QueueUnavailableError: Redis is away.
    """
    block = max(1, round(seconds * 1000)) if seconds > 0 else None
    with queue_errors():
        answer: Any = await reader.xread({f"dn:events:{job_id}": after}, count=_PAGE, block=block)
    entries = next(iter(dict(answer).values())) if answer else []
    return [JobEvent(id=e[0], event=e[1]["event"], data=json.loads(e[1]["data"])) for e in entries]


async def last_event_id(client: redis.asyncio.Redis, job_id: str) -> str:
    """Id of the newest event.

    Raises:
        QueueUnavailableError: Redis is away.
    """
    with queue_errors():
        newest: Any = await client.xrevrange(f"dn:events:{job_id}", count=1)
    return str(newest[0][0]) if newest else FIRST


async def events_dropped(client: redis.asyncio.Redis, job_id: str, after: str) -> bool:
    """Whether events after the id ``after`` are no longer kept.

    Raises:
        QueueUnavailableError: Redis is away.
    """
    key = f"dn:events:{job_id}"
    with queue_errors():
        oldest: Any = await client.xrange(key, count=1)
        if not oldest:
            return False
        if after != FIRST:
            return _order(oldest[0][0]) > _order(after)
        about: Any = await client.xinfo_stream(key)
    return int(about["entries-added"]) > int(about["length"])


def _order(event_id: str) -> tuple[int, int]:
    milliseconds, _, sequence = event_id.partition("-")
    return int(milliseconds), int(sequence)
