"""Repairs what a crash left between two writes, and removes what is older than its retention.

Each worker runs one. Every repair is safe to be done twice; a lock only saves the work, so it may be short, and a
worker that is killed during a pass delays the next one by seconds.
"""

from __future__ import annotations

import logging
import secrets
import shutil
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import redis
from rq.command import send_stop_job_command
from rq.exceptions import InvalidJobOperation, NoSuchJobError

from models.core.store import BlobStore
from service.settings import Settings
from workers.queue import SERIALIZER, enqueue, whole_seconds
from workers.records import JobRecord, Records
from workers.scripts import MAX_ATTEMPTS
from workers.stats import QUEUE
from workers.verdicts import ENDED, WAITING, finish, settle, worker_lost

log = logging.getLogger("deepnight.janitor")

LOCK = "dn:janitor"
CANCEL_S = 3.0
BATCH = 200


class Janitor:
    """One pass at a time over the open jobs, the expired ones and this machine's folders.

    Args:
        queue: a client that does not decode responses, for the queue library.
    """

    def __init__(self, settings: Settings, records: Records, queue: redis.Redis, store: BlobStore) -> None:
        self._settings = settings
        self._records = records
        self._redis = records.redis
        self._queue = queue
        self._store = store
        self._lease = whole_seconds(settings.job_lease_s)
        self._interval = min(5.0, self._lease / 2)
        self._suspects: dict[str, tuple[str, float]] = {}

    def run(self, stopped: threading.Event) -> None:
        """Pass after pass until ``stopped``."""
        while not stopped.wait(self._interval):
            try:
                self.once()
            except redis.RedisError as error:
                log.warning("the janitor could not reach Redis: %s", error)
            except Exception:
                # The thread must outlive one job that it cannot mend; the next pass tries again.
                log.exception("the janitor could not end its pass")

    def once(self) -> None:
        """One pass, unless another worker's janitor is at it."""
        self._sweep_folders()
        token = secrets.token_hex(8)
        if not self._redis.set(LOCK, token, nx=True, px=round(self._interval * 1000)):
            return
        try:
            self._repair()
            self._expire()
        finally:
            if self._redis.get(LOCK) == token:
                self._redis.delete(LOCK)

    def _repair(self) -> None:
        open_ids: Any = self._redis.zrange("dn:open", 0, -1)
        held = self._held()
        self._suspects = {job_id: seen for job_id, seen in self._suspects.items() if job_id in open_ids}
        for start in range(0, len(open_ids), BATCH):
            # Records first: the queue's older word about a record's newer run would end a run that is well.
            records = self._records.get_many(open_ids[start : start + BATCH])
            with self._redis.pipeline(transaction=False) as pipe:
                for record in records:
                    pipe.hmget(f"rq:job:{record.id}", ["status", "enqueued_at", "started_at"])
                facts = pipe.execute()
            for record, (status, *times) in zip(records, facts, strict=True):
                if not record.final:
                    self._look(record, status, times, record.id in held)

    def _look(self, record: JobRecord, rq_status: str | None, times: Iterable[str | None], held: bool) -> None:
        """Compare a record with the queue and act where they have disagreed for long enough."""
        if record.cancel is not None and time.time() - record.cancel > CANCEL_S:
            self._cancel(record)
        elif rq_status in ENDED or (rq_status in WAITING and record.status == "running"):
            settle(self._records, record, str(rq_status))
        elif self._suspicious(record, rq_status, times, held):
            self._run_again(record, rq_status)

    def _suspicious(self, record: JobRecord, rq_status: str | None, times: Iterable[str | None], held: bool) -> bool:
        """Whether the job has been nowhere in the queue for one and a half leases."""
        if rq_status is not None and held:
            self._suspects.pop(record.id, None)
            return False
        state = repr((rq_status, record.attempt, *times))
        seen, since = self._suspects.get(record.id, ("", 0.0))
        if seen != state:
            self._suspects[record.id] = (state, time.monotonic())
            return False
        return time.monotonic() - since > 1.5 * self._lease

    def _held(self) -> set[str]:
        """The jobs in the queue's lists and those leased to workers, read in the order in which a job passes them."""
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.lrange(f"rq:queue:{QUEUE}", 0, -1)
            pipe.lrange(f"rq:queue:{QUEUE}:intermediate", 0, -1)
            pipe.zrange(f"rq:wip:{QUEUE}", 0, -1)
            waiting, taken, leased = pipe.execute()
        return {*waiting, *taken, *(entry.partition(":")[0] for entry in leased)}

    def _run_again(self, record: JobRecord, rq_status: str | None) -> None:
        self._suspects.pop(record.id, None)
        if record.attempts >= MAX_ATTEMPTS:
            finish(self._records, record, "failed", worker_lost(record.attempts))
            return
        log.warning("job %s was lost from the queue and is queued again", record.id)
        if record.status == "running":
            self._records.requeue(record.id, record.attempt)
        if rq_status is None:
            enqueue(self._queue, self._settings, record.id)
        else:
            self._records.push_missing(record.id)

    def _cancel(self, record: JobRecord) -> None:
        """Close a job whose worker did not do it in time; its process loses the right to write."""
        finish(self._records, record, "cancelled")
        try:
            send_stop_job_command(self._queue, record.id, serializer=SERIALIZER)
        except (NoSuchJobError, InvalidJobOperation):
            log.info("job %s was cancelled while no worker had it", record.id)

    def _expire(self) -> None:
        limit = time.time() - self._settings.job_retention_s
        expired: Any = self._redis.zrange("dn:closed", "-inf", limit, byscore=True, offset=0, num=BATCH)
        for job_id in expired:
            self._store.delete(f"jobs/{job_id}")
            self._records.forget(job_id)

    def _sweep_folders(self) -> None:
        """Remove folders of runs that ended without a chance to."""
        root = self._settings.home.resolve() / "scratch"
        old = time.time() - 2 * self._lease
        for folder in root.iterdir() if root.exists() else ():
            job_id, _, attempt = folder.name.partition(".")
            if _modified(folder) > old:
                continue
            if self._redis.zscore(f"rq:wip:{QUEUE}", f"{job_id}:{attempt}") is None:
                shutil.rmtree(folder, ignore_errors=True)


def _modified(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except FileNotFoundError:
        return time.time()
