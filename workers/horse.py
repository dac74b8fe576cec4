"""The process of one job: a fresh Python that ends when its worker does and gives way to replicas."""

import os
import signal

from workers.leash import tie

# Before anything that takes time: a worker killed meanwhile must not leave this process behind.
if __name__ == "__main__":
    tie(int(os.environ["RQ_PPID"]), signal.SIGKILL)

import logging
import sys
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from rq.executions import Execution

from service.logs import configure
from service.settings import Settings
from workers.connect import patient
from workers.queue import SERIALIZER, JobQueue, QueuedJob, job_queue
from workers.records import Records
from workers.worker import JobWorker

NICENESS = 10  # somebody waits for a prediction, nobody for a job


def give_way() -> None:
    """Lower this process's priority, which its threads and children take over, and that of its session.

    A Linux that groups processes by session (``sched_autogroup_enabled``) shares the processors out among the sessions,
    and heeds niceness only within one.
    """
    os.nice(NICENESS)
    with suppress(OSError):
        Path("/proc/self/autogroup").write_text(str(NICENESS), encoding="ascii")


def main() -> NoReturn:
    """Run the job named by the environment; leaves with 0 once the queue knows how it ended."""
    give_way()
    settings = Settings()
    configure(settings)
    logging.getLogger("rq").setLevel(logging.WARNING)
    if settings.redis_url is None:
        sys.exit("DEEPNIGHT_REDIS_URL is not set")
    connection = patient(settings.redis_url, decode=False)
    worker = JobWorker.find_by_key(
        os.environ["RQ_WORKER_KEY"],
        connection=connection,
        job_class=QueuedJob,
        queue_class=JobQueue,
        serializer=SERIALIZER,
    )
    if not isinstance(worker, JobWorker):
        sys.exit("the worker of this job is gone")
    worker.equip(settings, Records(patient(settings.redis_url, decode=True)))
    worker.log_result_lifespan = False
    worker.log_job_description = False
    job = QueuedJob.fetch(os.environ["RQ_JOB_ID"], connection=connection, serializer=SERIALIZER)
    queue = job_queue(connection)
    execution = Execution.fetch(os.environ["RQ_EXECUTION_ID"], job.id, connection=connection)
    execution._job = job
    worker.execution = execution
    if not (isinstance(job, QueuedJob) and job.allowed()):
        worker._is_horse = True
        worker.handle_job_failure(job, queue, exc_string="not a job of this queue", execution=execution)
        sys.exit(0)
    worker.main_work_horse(job, queue)
    raise AssertionError("the job's process ends inside main_work_horse")


if __name__ == "__main__":
    main()
