"""Server-sent events, read line by line, whoever brings the lines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx

from deepnight.client.answers import Event, Job

FINAL = ("succeeded", "failed", "cancelled")
SILENCE_S = 45.0  # the service sends a comment line every 15 s


class EventReader:
    """Makes events of lines, and remembers where to go on.

    Attributes:
        ended: whether the job's final status has been read.
        timeout: of the connection.
    """

    timeout = httpx.Timeout(10.0, read=SILENCE_S)

    def __init__(self, job: str | Job, after: str | None) -> None:
        self._job = job if isinstance(job, str) else job.id
        self._last = after
        self._fields: dict[str, str] = {}
        self.ended = False

    def request(self) -> dict[str, Any]:
        """Keyword arguments of httpx's ``stream``."""
        self._fields = {}
        headers = {"Last-Event-ID": self._last} if self._last else {}
        return {"method": "GET", "url": f"/v1/jobs/{self._job}/events", "headers": headers}

    def feed(self, line: str) -> Iterator[Event]:
        """The event that ``line`` completes, if it does."""
        if line:
            name, _, value = line.partition(":")
            if name:
                self._fields[name] = value.removeprefix(" ")
            return
        if "data" in self._fields:
            event = Event(
                self._fields.get("id", ""), self._fields.get("event", "message"), json.loads(self._fields["data"])
            )
            self._last = event.id or self._last
            self.ended = event.kind == "status" and event.data.get("status") in FINAL
            yield event
        self._fields = {}
