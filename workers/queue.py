"""The queue and its worker: RQ, with a dead worker's job run again in seconds, by one process at a time.

Three things differ from the library's own classes: leases are short and checked before a result is believed, a death
is retried but an exception is not, and each job runs in a freshly executed Python (torch does not survive a fork).
"""

from __future__ import annotations

import math
from contextlib import suppress
from datetime import timedelta

from redis import Redis
from redis.client import Pipeline
from rq import Queue, Retry
from rq.command import send_stop_job_command
from rq.exceptions import DuplicateJobError, InvalidJobOperation, NoSuchJobError
from rq.intermediate_queue import IntermediateQueue
from rq.job import Job, JobStatus
from rq.utils import as_text, now

from service.settings import Settings
from workers.scripts import MAX_ATTEMPTS, PLACE
from workers.stats import QUEUE

RUN_JOB = "workers.run.run_job"
SERIALIZER = "json"
MAINTENANCE_LOCK_S = 30
RESULT_TTL_S, FAILURE_TTL_S = 86400, 7 * 86400


class QueuedJob(Job):
    """A job whose only code is the one function that workers run.

    The queue library would also import and call whatever names a job's record holds as callbacks; whoever can write
    to Redis must not thereby run code.
    """

    @property
    def success_callback(self) -> None:
        """None: callbacks are not used."""

    @property
    def failure_callback(self) -> None:
        """None: callbacks are not used."""

    @property
    def stopped_callback(self) -> None:
        """None: callbacks are not used."""

    def send_webhooks(self, status: str | JobStatus, *, exc_string: str | None = None) -> None:
        """Webhooks are not used."""

    def allowed(self) -> bool:
        """Whether this calls the one function with the job's own id and nothing else."""
        return (self.func_name, self.instance, list(self.args), self.kwargs) == (RUN_JOB, None, [self.id], {})


class FastIntermediate(IntermediateQueue):
    """Gives up on a worker that died between taking a job and starting it after ten seconds, not sixty."""

    patience_s = 10.0

    def get_first_seen_key(self, job_id: str) -> str:
        """Key of the time when a job was first seen there since it was last queued.

        The library's key outlives a retry: a job that was seen there once would be failed the next time it passes.
        """
        queued = self.connection.hget(f"{QueuedJob.redis_job_namespace_prefix}{job_id}", "enqueued_at")
        return f"{super().get_first_seen_key(job_id)}:{as_text(queued or b'')}"

    def should_be_cleaned_up(self, job_id: str) -> bool:
        """Whether the job was first seen there long enough ago."""
        seen = self.get_first_seen(job_id)
        return seen is not None and now() - seen > timedelta(seconds=self.patience_s)


class JobQueue(Queue):
    """A queue in order of priority, whose maintenance lock outlives a dead worker by 30 seconds, not 15 minutes.

    It is one list kept in order: a worker that serves several of the library's queues takes a job out of its list
    before it stands in another, and one that dies in between loses it.
    """

    job_class = QueuedJob

    def acquire_maintenance_lock(self) -> bool:
        """Take the lock, unless another worker has it."""
        return bool(self.connection.set(self.registry_cleaning_key, 1, nx=True, ex=MAINTENANCE_LOCK_S))

    def push_job_id(self, job_id: str, pipeline: Pipeline | None = None, at_front: bool = False) -> None:
        """Queue a job in its place, by priority and whether it lost a run; the library's ``at_front`` is not used."""
        super().push_job_id(job_id, pipeline)
        self.place(job_id, pipeline)

    def place(self, job_id: str, pipeline: Pipeline | None = None) -> None:
        """Move a job from the end of the queue to its place."""
        (self.connection if pipeline is None else pipeline).eval(PLACE, 0, job_id)

    @property
    def intermediate_queue(self) -> IntermediateQueue:
        """Jobs that were taken and have not started."""
        return FastIntermediate(self.key, self.connection)


def job_queue(connection: Redis) -> JobQueue:
    """The one queue; ``connection`` does not decode responses."""
    return JobQueue(QUEUE, connection=connection, serializer=SERIALIZER)


def enqueue(connection: Redis, settings: Settings, job_id: str) -> None:
    """Queue a job whose record exists; a repetition changes nothing."""
    with suppress(DuplicateJobError):
        queue = job_queue(connection)
        queue.enqueue(
            RUN_JOB,
            job_id,
            job_id=job_id,
            unique=True,
            job_timeout=settings.job_timeout_s,
            retry=Retry(max=MAX_ATTEMPTS - 1),
            result_ttl=RESULT_TTL_S,
            failure_ttl=FAILURE_TTL_S,
        )
        queue.place(job_id)  # a unique job's insertion is one script of the library, which knows two ends only


def stop(connection: Redis, job_id: str) -> bool:
    """Kill the job's process, or take the job out of the queue; whether it was waiting there."""
    try:
        job = QueuedJob.fetch(job_id, connection=connection, serializer=SERIALIZER)
        if job.get_status(refresh=False) == JobStatus.STARTED:
            send_stop_job_command(connection, job_id, serializer=SERIALIZER)
        elif job.get_status(refresh=False) == JobStatus.QUEUED:
            job.cancel()
            return True
    except (NoSuchJobError, InvalidJobOperation):
        return False  # it ended in between, or is not queued yet: the flag in its record does the rest
    return False


def whole_seconds(seconds: float) -> int:
    """RQ counts whole seconds, one at least."""
    return max(1, math.ceil(seconds))
