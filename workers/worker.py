"""The worker: takes jobs one by one, runs each in a process of its own, and watches that process."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any

from redis.client import Pipeline
from rq import Queue
from rq.exceptions import InvalidJobOperation
from rq.executions import Execution
from rq.job import Job
from rq.timeouts import JobTimeoutException
from rq.utils import as_text
from rq.worker import Worker

from service.settings import Settings
from workers.connect import AWAY, patient
from workers.environment import environment
from workers.queue import SERIALIZER, JobQueue, QueuedJob, job_queue, whole_seconds
from workers.records import Records
from workers.sharing import WorkerSharing
from workers.verdicts import internal_error, settle, timed_out, worker_lost

log = logging.getLogger("deepnight.worker")

TIMEOUT_GRACE_S = 3.0
SECOND_SIGNAL_S = 1.1  # the queue library takes a second signal within one second for a repetition of the first
DEQUEUE_SLACK_S = 15  # its worker_ttl is this much more than one wait for a job


class JobWorker(Worker):
    """A worker whose job processes end with it, and whose leases are short.

    The queue library makes instances itself, so what is ours is set by :meth:`equip`.
    """

    queue_class = JobQueue
    job_class = QueuedJob
    settings: Settings
    records: Records
    sharing: WorkerSharing | None = None

    def equip(self, settings: Settings, records: Records) -> JobWorker:
        """Give the worker its settings and the records."""
        self.settings = settings
        self.records = records
        self._reasons: dict[str, dict[str, Any]] = {}
        return self

    @property
    def stopping(self) -> bool:
        """Whether somebody asked the worker to stop."""
        return self._shutdown_requested_date is not None

    def heartbeat(self, timeout: int | None = None, pipeline: Pipeline | None = None) -> None:
        """Say that the worker lives, and share its metrics; a job's process, made of the same class, shares nothing."""
        super().heartbeat(timeout, pipeline)
        if self.sharing is not None:
            self.sharing.share(self.horse_pid)

    def get_heartbeat_ttl(self, job: Job, working_time: float = 0.0) -> int:
        """Seconds for which the job is this worker's without a further heartbeat."""
        return whole_seconds(self.settings.job_lease_s)

    def owns(self, job: Job, execution: Execution | None) -> bool:
        """Whether the lease still stands; a worker that was stopped for long may find that it does not."""
        if execution is None:
            return True
        return self.connection.zscore(job.started_job_registry.key, execution.composite_key) is not None

    def maintain_heartbeats(self, job: Job, execution: Execution) -> None:
        """Every interval while the job runs: extend the lease, or kill what must not go on."""
        started = job.started_at.timestamp() if job.started_at else time.time()
        if job.timeout and 0 < job.timeout < time.time() - started - TIMEOUT_GRACE_S:
            # The library's own alarm waits for native code to return.
            self._reasons[job.id] = timed_out(job.timeout)
            job.retries_left = 0
            self.kill_horse()
            return
        try:
            if not self.owns(job, execution):
                self.kill_horse()
            elif self.records.redis.hexists(f"dn:job:{job.id}", "cancel"):
                self._stopped_job_id = job.id
                self.kill_horse()
            else:
                super().maintain_heartbeats(job, execution)
        except AWAY:
            log.warning("Redis is away; job %s goes on", job.id)

    def handle_job_failure(
        self,
        job: Job,
        queue: Queue,
        started_job_registry: Any = None,
        exc_string: str = "",
        execution: Execution | None = None,
    ) -> None:
        """Retry after a death, not after an exception; nothing where another worker has the job by now."""
        if not self.owns(job, execution):
            return
        if self.is_horse:
            job.retries_left = 0
            late = JobTimeoutException.__name__ in exc_string
            self._reasons[job.id] = timed_out(job.timeout) if late else internal_error(job.id)
        super().handle_job_failure(job, queue, started_job_registry, exc_string=exc_string, execution=execution)
        record = self.records.get(job.id)
        if record is not None:
            with suppress(InvalidJobOperation):  # the queue forgot the job: the janitor looks after the record
                settle(self.records, record, job.get_status(), self._reasons.pop(job.id, None))

    def clean_registries(self) -> None:
        """Hand on the jobs of dead workers, and show at once what became of them."""
        dead = [job_id for queue in self.queues for job_id in queue.started_job_registry.get_expired_job_ids()]
        super().clean_registries()  # type: ignore[no-untyped-call]
        for job_id in dead:
            record = self.records.get(job_id)
            status = self.connection.hget(QueuedJob.key_for(job_id), "status")
            if record is not None and status is not None:
                settle(self.records, record, as_text(status))

    def handle_job_success(self, job: Job, queue: Queue, started_job_registry: Any, execution: Execution) -> None:
        """Nothing where another worker has the job by now."""
        if self.owns(job, execution):
            super().handle_job_success(job, queue, started_job_registry, execution)

    def handle_work_horse_killed(self, job: Job, retpid: Any, ret_val: Any, rusage: Any) -> None:
        """Remember the signal that ended the job's process."""
        super().handle_work_horse_killed(job, retpid, ret_val, rusage)  # type: ignore[no-untyped-call]
        if ret_val is not None and os.WIFSIGNALED(ret_val) and job.id not in self._reasons:
            record = self.records.get(job.id)
            self._reasons[job.id] = worker_lost(record.attempts if record else 1, os.WTERMSIG(ret_val))

    def fork_work_horse(self, job: Job, queue: Queue) -> None:
        """Run the job in a freshly executed Python, in a process group of its own."""
        execution = self.execution
        if execution is None:
            raise RuntimeError(f"job {job.id} has no execution")
        variables = {
            **environment(self.settings),
            "RQ_WORKER_KEY": self.key,
            "RQ_JOB_ID": job.id,
            "RQ_EXECUTION_ID": execution.id,
            "RQ_PPID": str(os.getpid()),
        }
        command = [sys.executable, "-m", "workers.horse"]
        self._horse_pid = os.posix_spawn(sys.executable, command, variables, setpgroup=0)
        if self.sharing is not None:
            self.sharing.job_started()

    def monitor_work_horse(self, job: Job, queue: Queue, execution: Execution) -> None:
        """Watch the job's process to its end and remove its folder, which it cannot do itself when it is killed."""
        try:
            super().monitor_work_horse(job, queue, execution)
        finally:
            self._reasons.pop(job.id, None)
            shutil.rmtree(scratch_folder(self.settings, job.id, execution.id), ignore_errors=True)
            if self.sharing is not None:
                self.sharing.job_ended()

    def teardown(self) -> None:
        """Leave the queue's list of workers, and that of living processes."""
        super().teardown()  # type: ignore[no-untyped-call]
        if self.sharing is not None:
            self.sharing.end()

    def request_stop(self, signum: int, frame: FrameType | None) -> None:
        """First signal: take no more jobs and let the running one end, but for ``drain_s`` at most."""
        again = threading.Timer(max(SECOND_SIGNAL_S, self.settings.drain_s), os.kill, (os.getpid(), signal.SIGTERM))
        again.daemon = True
        again.start()
        super().request_stop(signum, frame)  # type: ignore[no-untyped-call]


def make_worker(settings: Settings, url: str) -> JobWorker:
    """A worker of the queue at ``url``."""
    connection = patient(url, decode=False)
    # An idle worker looks for dead ones after each wait; the library counts both from the same moment, so that equal
    # intervals would make it look after every second wait only.
    look = max(1, whole_seconds(settings.job_lease_s) // 4)
    worker = JobWorker(
        [job_queue(connection)],
        connection=connection,
        job_monitoring_interval=whole_seconds(settings.job_interval_s),
        worker_ttl=DEQUEUE_SLACK_S + look,
        maintenance_interval=look // 2,
        serializer=SERIALIZER,
        log_job_description=False,
    )
    records = Records(patient(url, decode=True))
    worker.sharing = WorkerSharing(records.redis)
    return worker.equip(settings, records)


def scratch_folder(settings: Settings, job_id: str, attempt: str) -> Path:
    """The folder that lives as long as one run of a job."""
    return settings.home.resolve() / "scratch" / f"{job_id}.{attempt}"
