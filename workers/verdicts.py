"""Why a job ended, as problem documents, and the queue library's verdict on a job whose process could not give one."""

from __future__ import annotations

import signal
from http import HTTPStatus
from typing import Any

from rq.job import JobStatus

from workers.records import JobRecord, Records, Status
from workers.scripts import MAX_ATTEMPTS

ENDED = {JobStatus.FINISHED, JobStatus.FAILED, JobStatus.STOPPED, JobStatus.CANCELED}
WAITING = {JobStatus.QUEUED, JobStatus.CREATED, JobStatus.DEFERRED, JobStatus.SCHEDULED}


def problem(code: str, status: int, detail: str, field: str | None = None) -> dict[str, Any]:
    """An RFC 9457 problem document."""
    document: dict[str, Any] = {
        "type": f"urn:deepnight:problem:{code}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
    }
    if field is not None:
        document["errors"] = [{"field": field, "detail": detail}]
    return document


def timed_out(seconds: float | None) -> dict[str, Any]:
    """The job ran longer than it may."""
    return problem("job-timeout", 504, f"the job ran longer than the {seconds or 0:.0f} seconds that a job may take")


def worker_lost(attempts: int, number: int = 0) -> dict[str, Any]:
    """The job's process ended without a result as often as it may."""
    how = f", the last time by signal {signal.Signals(number).name}" if number else ""
    memory = " (most often: out of memory)" if number == signal.SIGKILL else ""
    return problem("job-lost", 500, f"the process of the job ended unexpectedly in {attempts} runs{how}{memory}")


def internal_error(job_id: str) -> dict[str, Any]:
    """A fault of ours; the operator finds more under the job's id."""
    return problem("job-failed", 500, f"an internal error; the operator finds its cause under {job_id}")


def settle(records: Records, record: JobRecord, rq_status: str, error: dict[str, Any] | None = None) -> None:
    """Copy the queue's verdict into a record that is still open, if it is still about the same attempt.

    Args:
        error: why, where the verdict is a failure and the reason is known.
    """
    if record.final:
        return
    if rq_status in (JobStatus.STOPPED, JobStatus.CANCELED):
        finish(records, record, "cancelled")
    elif rq_status in (JobStatus.FAILED, JobStatus.FINISHED):
        finish(records, record, "failed", error or worker_lost(record.attempts))
    elif rq_status in WAITING and record.status == "running":
        if record.cancel is not None:
            finish(records, record, "cancelled")
        elif record.attempts >= MAX_ATTEMPTS:
            finish(records, record, "failed", error or worker_lost(record.attempts))
        else:
            records.requeue(record.id, record.attempt)


def finish(records: Records, record: JobRecord, status: Status, error: dict[str, Any] | None = None) -> None:
    """Give a record its final status from outside the job's process."""
    records.close(record.id, record.attempt, status, {"error": error})
