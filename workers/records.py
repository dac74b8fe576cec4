"""The record of a job: what its owner sees, kept apart from the queue library's own bookkeeping.

A record changes only by the scripts of :mod:`workers.scripts`. Every write of a job process names its attempt and is
refused when another attempt owns the job (a fencing token), so that of two processes that believe in the same job
only one can leave a trace.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from redis import Redis
from rq.utils import now, utcformat

from workers import scripts

Status = Literal["queued", "running", "succeeded", "failed", "cancelled"]
Priority = Literal["low", "normal", "high"]
TERMINAL: frozenset[str] = frozenset({"succeeded", "failed", "cancelled"})

_JSON_FIELDS = ("parameters", "labels", "progress", "error", "artifacts")


class JobSpec(BaseModel):
    """What a user asks for.

    ``priority``: waiting ``high`` jobs start before ``normal`` ones and those before ``low`` ones, each in the order in
    which they came. A running job is not interrupted.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: str = Field(min_length=1, max_length=64)
    model: str | None = Field(default=None, min_length=1, max_length=128)
    dataset: str | None = Field(default=None, min_length=1, max_length=128)
    parameters: dict[str, Any] = {}
    seed: int | None = Field(default=None, ge=0, lt=1 << 53, description="0 when left out")
    priority: Priority = "normal"
    labels: dict[str, str] = Field(default={}, max_length=64)


class Progress(BaseModel):
    """How far a job is; ``fraction`` in [0, 1]."""

    fraction: float = 0.0
    stage: str = ""
    message: str = ""
    eta_seconds: float | None = None


class Artifact(BaseModel):
    """A file that a job made; ``key`` is its place in the blob store."""

    name: str
    media_type: str
    bytes: int
    sha256: str
    key: str


class JobRecord(BaseModel):
    """One job, as it is now. Times are Unix seconds (UTC).

    Attributes:
        parameters_key: where the parameters are when they are too large for the record; ``parameters`` is empty then.
        error: an RFC 9457 problem when the job failed.
        result_key: blob of the result (JSON) when it succeeded.
        traceback_key: blob of the traceback of an internal error, for administrators.
        log_key: blob of the whole log once the job has ended; ``log_tail`` holds the last lines at any time.
        state_key: blob of the resume point, empty where there is none.
        attempt: the fencing token of the latest run.
    """

    id: str
    owner: str
    kind: str
    model: str | None = None
    dataset: str | None = None
    parameters: dict[str, Any] = {}
    parameters_key: str | None = None
    seed: int | None = None
    priority: Priority = "normal"
    labels: dict[str, str] = {}
    status: Status
    progress: Progress = Progress()
    attempts: int = 0
    created_at: float
    started_at: float | None = None
    finished_at: float | None = None
    cancel: float | None = Field(default=None, description="when the user asked for a stop")
    error: dict[str, Any] | None = None
    result_key: str | None = None
    artifacts: list[Artifact] = []
    traceback_key: str | None = None
    log_key: str | None = None
    log_tail: list[str] = []
    state_key: str = ""
    request_id: str = ""
    traceparent: str = ""
    attempt: str = ""
    worker: str = ""

    @property
    def final(self) -> bool:
        """Whether the status will not change any more."""
        return self.status in TERMINAL

    @property
    def spec(self) -> JobSpec:
        """What was asked for."""
        return JobSpec.model_validate(self.model_dump(include=set(JobSpec.model_fields)))


class JobEvent(BaseModel):
    """One entry of a job's event stream; ``id`` resumes after it."""

    id: str
    event: str
    data: dict[str, Any]


def parse_record(fields: Mapping[str, str], log_tail: Sequence[str] = ()) -> JobRecord:
    """The record from its hash in Redis."""
    known: dict[str, Any] = {name: value for name, value in fields.items() if name in JobRecord.model_fields}
    for name in _JSON_FIELDS:
        if name in known:
            known[name] = json.loads(known[name])
    return JobRecord.model_validate({**known, "log_tail": list(log_tail)})


def pairs(fields: Mapping[str, Any]) -> list[str]:
    """Alternating names and values for a script; what is not text is written as JSON, None is left out."""
    flat: list[str] = []
    for name, value in fields.items():
        if value is not None:
            flat += [name, value if isinstance(value, str) else json.dumps(value, allow_nan=False)]
    return flat


class Records:
    """Synchronous access to the records, for workers, job processes and the janitor.

    Args:
        redis: a client that decodes responses.
    """

    def __init__(self, redis: Redis) -> None:
        self.redis = redis

    def get(self, job_id: str) -> JobRecord | None:
        """The record, or None."""
        found = self.get_many([job_id])
        return found[0] if found else None

    def get_many(self, job_ids: Sequence[str]) -> list[JobRecord]:
        """The records of those that have one."""
        with self.redis.pipeline(transaction=False) as pipe:
            for job_id in job_ids:
                pipe.hgetall(f"dn:job:{job_id}")
            return [parse_record(fields) for fields in pipe.execute() if fields]

    def begin(self, job_id: str, attempt: str, worker: str) -> int:
        """Take the job for ``attempt``; the answer is :data:`workers.scripts.BEGIN`'s."""
        return int(self._eval(scripts.BEGIN, job_id, attempt, repr(time.time()), worker))

    def write(
        self, job_id: str, attempt: str, fields: Mapping[str, Any], events: Sequence[tuple[str, Mapping[str, Any]]]
    ) -> int:
        """Set fields and append events if ``attempt`` owns the job; the answer is :data:`workers.scripts.WRITE`'s."""
        flat = pairs(fields)
        tail = [part for name, data in events for part in (name, json.dumps(data, allow_nan=False))]
        return int(self._eval(scripts.WRITE, job_id, attempt, len(flat), *flat, *tail))

    def close(self, job_id: str, attempt: str, status: Status, fields: Mapping[str, Any]) -> bool:
        """Give the job its final status if ``attempt`` is still the latest and it has none."""
        return bool(self._eval(scripts.CLOSE, job_id, attempt, status, repr(time.time()), *pairs(fields)))

    def requeue(self, job_id: str, attempt: str) -> bool:
        """Show the job as waiting after its run ``attempt`` died."""
        return bool(self._eval(scripts.REQUEUE, job_id, attempt))

    def forget(self, job_id: str) -> None:
        """Delete the record, its events and its log."""
        self._eval(scripts.FORGET, job_id)

    def push_missing(self, job_id: str) -> bool:
        """Put a job back that is in none of the queue's lists."""
        return bool(self._eval(scripts.PUSH_MISSING, job_id, utcformat(now())))

    def _eval(self, script: str, *args: Any) -> Any:
        """Send the script itself: a server that restarts knows no hashes, and may restart again before it is told."""
        return self.redis.eval(script, 0, *args)
