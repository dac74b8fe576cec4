"""What a job process reports, gathered and sent by a thread of its own at most four times a second.

So a report costs the job nothing, a Redis that is away for a while does not stop it, and a process whose job another
attempt has taken over ends within seconds even while it is deep in native code.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Mapping
from typing import Any

import redis

from models.core.run import Cancelled
from workers.connect import AWAY
from workers.records import Records

log = logging.getLogger("deepnight.job")

EVERY_S = 0.25
LOOK_S = 1.0
KEPT = 1000
LOST_EXIT = 75  # EX_TEMPFAIL: this process gives up, the job may be run again

Event = tuple[str, Mapping[str, Any]]


class Outbox:
    """Fenced writes of the attempt ``attempt`` of the job ``job_id``."""

    def __init__(self, records: Records, job_id: str, attempt: str) -> None:
        self._records = records
        self._job_id = job_id
        self._attempt = attempt
        self._pending = threading.Lock()
        self._sending = threading.Lock()
        self._fields: dict[str, Any] = {}
        self._events: list[Event] = []
        self._progress: dict[str, Any] | None = None
        self._cancelled = False
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)

    def start(self) -> None:
        """Start sending."""
        self._thread.start()

    def progress(self, progress: dict[str, Any]) -> None:
        """The latest progress; earlier ones that were not sent yet are dropped."""
        with self._pending:
            self._progress = progress

    def event(self, name: str, data: Mapping[str, Any]) -> None:
        """One event; while Redis is away the last thousand are kept."""
        with self._pending:
            self._events.append((name, data))
            del self._events[:-KEPT]

    def set(self, fields: Mapping[str, Any]) -> None:
        """Fields of the record."""
        with self._pending:
            self._fields |= fields

    def check(self) -> None:
        """Raise where the user asked for a stop.

        Raises:
            Cancelled: the user did.
        """
        if self._cancelled:
            raise Cancelled

    def flush(self) -> None:
        """Send everything now.

        Raises:
            redis.RedisError: Redis stayed away, or without memory, for too long.
        """
        with self._sending:
            with self._pending:
                fields, events, progress = self._fields, self._events, self._progress
                self._fields, self._events, self._progress = {}, [], None
            if progress is not None:
                fields, events = {**fields, "progress": progress}, [*events, ("progress", progress)]
            try:
                answer = self._records.write(self._job_id, self._attempt, fields, events)
            except redis.RedisError:
                with self._pending:
                    self._fields = {**fields, **self._fields}
                    self._events = [*events, *self._events][-KEPT:]
                raise
        if answer == 0:
            log.warning("another attempt owns job %s: this process ends", self._job_id)
            os._exit(LOST_EXIT)
        self._cancelled = answer == 2

    def stop(self) -> None:
        """End the thread and send the rest."""
        self._stopped.set()
        self._thread.join()
        self.flush()

    def _run(self) -> None:
        sent = time.monotonic()
        while not self._stopped.wait(EVERY_S):
            waiting = self._events or self._fields or self._progress is not None
            if not waiting and time.monotonic() - sent < LOOK_S:
                continue
            sent = time.monotonic()
            try:
                self.flush()
            except AWAY:
                log.warning("Redis is away; job %s goes on", self._job_id)
