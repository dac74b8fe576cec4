"""The gateway's side of the queue: submit, look, cancel, follow. Asynchronous; never imports torch."""

from __future__ import annotations

import builtins
import hashlib
import json
import re
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import anyio.to_thread

from models.core.store import BlobStore
from service.settings import Settings
from workers import buckets, scripts
from workers.connect import prompt, prompt_async
from workers.errors import (
    IdempotencyConflictError,
    QueueUnavailableError,
    TooManyJobsError,
    UnknownJobError,
    queue_errors,
)
from workers.events import EVENT_ID, FIRST, events_dropped, last_event_id, read_events
from workers.queue import enqueue, stop
from workers.records import TERMINAL, JobEvent, JobRecord, JobSpec, Status, pairs, parse_record
from workers.sharing import Shared, exchange, leave, send
from workers.stats import QueueStats, read_stats

__all__ = [
    "IdempotencyConflictError",
    "JobEvent",
    "JobRecord",
    "JobSpec",
    "JobsClient",
    "QueueStats",
    "QueueUnavailableError",
    "TooManyJobsError",
    "UnknownJobError",
]

KEEP_ALIVE_S = 15.0
BUCKET_S = 0.5
INLINE_BYTES = 64 << 10
_NAMESPACE = uuid.UUID("6f8b3f0a-6d0b-4a53-9d2e-0c6a35f1b6a4")
_DATASET_ID = re.compile(r"\bds_[0-9a-f]+")
_PAGE = 200


class JobsClient:
    """Jobs as the gateway sees them.

    Every method but :meth:`ping` raises :class:`QueueUnavailableError` while Redis is away.

    Args:
        redis_url: where the queue is.
        settings: limits, times and the blob store.
    """

    def __init__(self, redis_url: str, settings: Settings) -> None:
        self._settings = settings
        self._redis = prompt_async(redis_url)
        self._readers = prompt_async(redis_url, socket_timeout=KEEP_ALIVE_S + 5)
        self._buckets = prompt_async(redis_url, socket_timeout=BUCKET_S, retries=0)
        self._queue_redis = prompt(redis_url)
        self._store = BlobStore(settings.store)
        self._create = self._redis.register_script(scripts.CREATE)
        self._cancel = self._redis.register_script(scripts.CANCEL)
        self._close = self._redis.register_script(scripts.CLOSE)

    async def submit(
        self, spec: JobSpec, owner: str, *, idempotency_key: str | None = None, request_id: str = "", trace: str = ""
    ) -> tuple[JobRecord, bool]:
        """Store a checked job durably and queue it; whether it is new is the second of the answer.

        Once the record is stored the job will run: where queueing it fails now, the janitor repeats that.

        Raises:
            IdempotencyConflictError: the key came before with another request.
            TooManyJobsError: the owner has too many open jobs.
        """
        content = json.dumps(spec.model_dump(mode="json"), sort_keys=True, allow_nan=False)
        body_hash = hashlib.sha256(content.encode()).hexdigest()
        unique = uuid.uuid4() if idempotency_key is None else uuid.uuid5(_NAMESPACE, f"{owner}\0{idempotency_key}")
        job_id = f"job_{unique.hex}"
        fields: dict[str, Any] = spec.model_dump(mode="json", exclude={"kind"})
        fields |= {
            "request_id": request_id,
            "traceparent": trace,
            "datasets": sorted(set(_DATASET_ID.findall(content))),
        }
        parameters = json.dumps(fields["parameters"]).encode()
        if len(parameters) > INLINE_BYTES:
            key = f"jobs/{job_id}/parameters-{body_hash[:16]}.json"
            await anyio.to_thread.run_sync(self._store.put, key, parameters)
            fields |= {"parameters": {}, "parameters_key": key}
        arguments: list[Any] = [job_id, owner, spec.kind, repr(time.time()), self._settings.concurrent_jobs, body_hash]
        with queue_errors():
            made = int(await self._create(args=[*arguments, *pairs(fields)]))
        if made == -1:
            raise IdempotencyConflictError("the idempotency key was used before with another request")
        if made == -2:
            raise TooManyJobsError(f"{self._settings.concurrent_jobs} jobs are open already")
        # Without a key, "there already" is this very call whose first answer got lost on the way.
        created = made == 1 or idempotency_key is None
        if created:
            with suppress(QueueUnavailableError):
                await anyio.to_thread.run_sync(self._enqueue, job_id)
        return await self._known(job_id), created

    async def get(self, job_id: str) -> JobRecord | None:
        """The job, or None."""
        with queue_errors():
            async with self._redis.pipeline(transaction=False) as pipe:
                pipe.hgetall(f"dn:job:{job_id}")
                pipe.lrange(f"dn:log:{job_id}", 0, -1)
                fields, log_tail = await pipe.execute()
        return parse_record(fields, log_tail) if fields else None

    async def list(
        self,
        owner: str | None,
        status: Status | None = None,
        kind: str | None = None,
        limit: int = 20,
        after: str | None = None,
    ) -> tuple[builtins.list[JobRecord], bool]:
        """Jobs of ``owner`` (of everybody when None), the newest first, and whether there are more.

        Raises:
            UnknownJobError: ``after`` names no job of this list.
        """
        index = "dn:jobs" if owner is None else f"dn:jobs:{owner}"
        found: builtins.list[JobRecord] = []
        start = 0
        with queue_errors():
            if after is not None:
                rank: Any = await self._redis.zrevrank(index, after)
                if rank is None:
                    raise UnknownJobError(after)
                start = int(rank) + 1
            while len(found) <= limit:
                ids: Any = await self._redis.zrange(index, start, start + _PAGE - 1, desc=True)
                if not ids:
                    break
                start += len(ids)
                records = await self._read(await self._of(ids, status, kind))
                found += [record for record in records if status in (None, record.status)]
        return found[:limit], len(found) > limit

    async def cancel(self, job_id: str) -> JobRecord:
        """Ask for a stop: a waiting job is cancelled at once, a running one within seconds, a final one stays.

        Raises:
            UnknownJobError: there is no such job.
        """
        with queue_errors():
            outcome = int(await self._cancel(args=[job_id, repr(time.time())]))
        if outcome > 0:
            record = await self._known(job_id)
            waiting = await anyio.to_thread.run_sync(self._stop, job_id)
            if waiting:
                with queue_errors():
                    await self._close(args=[job_id, record.attempt, "cancelled", repr(time.time())])
        return await self._known(job_id)

    async def wait(self, job_id: str, timeout: float) -> JobRecord:  # noqa: ASYNC109 - running out of it is no error
        """The job as soon as it is final, or as it is after ``timeout`` seconds.

        Raises:
            UnknownJobError: there is no such job.
        """
        deadline = time.monotonic() + timeout
        seen = await last_event_id(self._redis, job_id)
        while True:
            record = await self._known(job_id)
            remaining = deadline - time.monotonic()
            if record.final or remaining <= 0:
                return record
            changed = False
            while not changed and (remaining := deadline - time.monotonic()) > 0:
                events = await read_events(self._readers, job_id, seen, min(remaining, KEEP_ALIVE_S))
                seen = events[-1].id if events else seen
                changed = any(event.event == "status" for event in events)

    async def events(self, job_id: str, last_id: str = FIRST) -> AsyncIterator[JobEvent | None]:
        """The job's events after ``last_id``, then new ones until the final status; None every 15 s without any.

        Where events in between are no longer kept, a ``snapshot`` of the record comes first.

        Raises:
            ValueError: ``last_id`` is not the id of an event.
            UnknownJobError: there is no such job.
        """
        if not EVENT_ID.fullmatch(last_id):
            raise ValueError(f"not the id of an event: {last_id!r}")
        record = await self._known(job_id)
        if await events_dropped(self._redis, job_id, last_id):
            data = record.model_dump(mode="json", include={"status", "progress", "attempts", "error"})
            yield JobEvent(id=last_id, event="snapshot", data=data)
        while True:
            events = await read_events(self._readers, job_id, last_id, 0.0 if record.final else KEEP_ALIVE_S)
            for event in events:
                yield event
                last_id = event.id
                if event.event == "status" and event.data["status"] in TERMINAL:
                    return
            if not events:
                if record.final:
                    return
                yield None
                record = await self._known(job_id)

    async def stats(self) -> QueueStats:
        """Counts, ages, workers and histograms."""
        with queue_errors():
            return await read_stats(self._redis)

    async def share(self, message: builtins.list[Any]) -> None:
        """Share a process's metrics."""
        with queue_errors():
            await send(self._redis, message)

    async def leave(self, process: str) -> None:
        """Say that a process that shared metrics ends."""
        with queue_errors():
            await leave(self._redis, process)

    async def exchange(self, message: builtins.list[Any]) -> Shared:
        """Share a process's metrics and read everybody's."""
        with queue_errors():
            return await exchange(self._redis, message)

    async def take_token(self, key: str, per_minute: int) -> tuple[bool, float]:
        """Take a token of a key's bucket: whether there was one, and how many are left. Does not wait for Redis."""
        with queue_errors():
            return await buckets.take(self._buckets, key, per_minute)

    async def ping(self) -> bool:
        """Whether Redis answers."""
        try:
            with queue_errors():
                return bool(await self._redis.ping())
        except QueueUnavailableError:
            return False

    async def dataset_in_use(self, dataset_id: str) -> bool:
        """Whether a job that is not final names the data set."""
        with queue_errors():
            ids: Any = await self._redis.zrange("dn:open", 0, -1)
            async with self._redis.pipeline(transaction=False) as pipe:
                for job_id in ids:
                    pipe.hget(f"dn:job:{job_id}", "datasets")
                used = await pipe.execute()
        return any(dataset_id in json.loads(names) for names in used if names)

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()
        await self._readers.aclose()
        await self._buckets.aclose()
        self._queue_redis.close()

    async def _of(self, ids: builtins.list[str], status: Status | None, kind: str | None) -> builtins.list[str]:
        """Those of a status and a kind; two fields of a record cost a tenth of all of it."""
        if status is None and kind is None:
            return ids
        async with self._redis.pipeline(transaction=False) as pipe:
            for job_id in ids:
                pipe.hmget(f"dn:job:{job_id}", ["status", "kind"])
            facts = await pipe.execute()
        wanted = (status, kind)
        return [
            job_id
            for job_id, known in zip(ids, facts, strict=True)
            if all(want in (None, found) for want, found in zip(wanted, known, strict=True))
        ]

    async def _read(self, ids: builtins.list[str]) -> builtins.list[JobRecord]:
        """The records of those that have one."""
        async with self._redis.pipeline(transaction=False) as pipe:
            for job_id in ids:
                pipe.hgetall(f"dn:job:{job_id}")
            return [parse_record(fields) for fields in await pipe.execute() if fields]

    async def _known(self, job_id: str) -> JobRecord:
        record = await self.get(job_id)
        if record is None:
            raise UnknownJobError(job_id)
        return record

    def _enqueue(self, job_id: str) -> None:
        with queue_errors():
            enqueue(self._queue_redis, self._settings, job_id)

    def _stop(self, job_id: str) -> bool:
        with queue_errors():
            return stop(self._queue_redis, job_id)
