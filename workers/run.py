"""The one function that the queue may call: run a job in this process and record how it ended."""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.core.registry import Registry
from models.core.run import Cancelled
from models.core.store import BlobStore
from service import tracing
from service.settings import Settings
from workers import kinds
from workers.connect import AWAY, patient
from workers.context import WorkerContext
from workers.outbox import LOST_EXIT, Outbox
from workers.pages import INDEX, ROWS, Pages, split_pages
from workers.records import JobRecord, JobSpec, Records, Status
from workers.verdicts import finish, internal_error, worker_lost
from workers.worker import scratch_folder

log = logging.getLogger("deepnight.job")

BEGUN, CANCELLED, EXHAUSTED, LEASE_LOST = 1, 2, 3, -1


@dataclass(frozen=True)
class Outcome:
    """How a job ended; ``result`` is JSON, its long list apart."""

    status: Status
    result: str = ""
    pages: Pages | None = None
    error: dict[str, Any] | None = None
    traceback: str = ""


def run_job(job_id: str) -> None:
    """Run the job ``job_id`` as the attempt that the environment names."""
    settings = Settings()
    if settings.redis_url is None:
        raise RuntimeError("DEEPNIGHT_REDIS_URL is not set")
    records = Records(patient(settings.redis_url, decode=True))
    attempt = os.environ["RQ_EXECUTION_ID"]
    begun = records.begin(job_id, attempt, os.environ["RQ_WORKER_KEY"].rpartition(":")[2])
    record = records.get(job_id)
    if begun == LEASE_LOST:
        os._exit(LOST_EXIT)
    if record is None:
        return
    if begun == CANCELLED:
        finish(records, record, "cancelled")
    elif begun == EXHAUSTED:
        finish(records, record, "failed", worker_lost(record.attempts))
    elif begun == BEGUN:
        scratch = scratch_folder(settings, job_id, attempt)
        scratch.mkdir(parents=True)
        try:
            with tracing.job(record.kind, record.id, record.attempts, record.traceparent):
                _run(settings, records, record, scratch)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


def _run(settings: Settings, records: Records, record: JobRecord, scratch: Path) -> None:
    """Run and record, or leave the process where Redis is gone so that the job is run again."""
    started = time.monotonic()
    log.info("job %s (%s) starts, run %d", record.id, record.kind, record.attempts)
    outbox = Outbox(records, record.id, record.attempt)
    try:
        context = _context(settings, record, outbox, scratch)
        outbox.start()
        outcome = _outcome(context, record)
        _record(records, record, context, outbox, outcome)
    except AWAY:
        log.exception("Redis is away for too long: job %s is given up here and run again", record.id)
        os._exit(LOST_EXIT)
    log.info("job %s %s after %.1f s", record.id, outcome.status, time.monotonic() - started)


def _context(settings: Settings, record: JobRecord, outbox: Outbox, scratch: Path) -> WorkerContext:
    import torch

    from models.core.devices import pick_device

    # The job is the only computation of its worker: it takes every core unless the operator said otherwise.
    if "torch_threads" in settings.model_fields_set:
        torch.set_num_threads(settings.torch_threads)
    registry, store = Registry(*settings.method_roots), BlobStore(settings.store)
    device = str(pick_device(settings.device))
    return WorkerContext(record, settings, registry, store, outbox, device=device, scratch=scratch)


def _outcome(context: WorkerContext, record: JobRecord) -> Outcome:
    from workers.failures import explain

    try:
        result = kinds.execute(context.registry, context, _spec(context, record))
        found = context.registry.job_kinds().get(record.kind)
        rest, pages = split_pages(result, None if found is None else found[1])
        return Outcome("succeeded", json.dumps(rest, allow_nan=False), pages)
    except Cancelled:
        return Outcome("cancelled")
    except AWAY:
        raise
    except Exception as error:
        known = explain(error, context.settings.job_timeout_s)
        if known is not None:
            return Outcome("failed", error=known)
        return Outcome("failed", error=internal_error(record.id), traceback=traceback.format_exc())


def _spec(context: WorkerContext, record: JobRecord) -> JobSpec:
    if record.parameters_key is None:
        return record.spec
    parameters = json.loads(context.read_blob(record.parameters_key))
    return record.spec.model_copy(update={"parameters": parameters})


def _record(records: Records, record: JobRecord, context: WorkerContext, outbox: Outbox, outcome: Outcome) -> None:
    """Store what the job made, then close its record: the pointers appear together and last."""
    try:
        fields = _store(record, context, outcome)
    except OSError as error:
        from workers.failures import explain

        full = explain(error, context.settings.job_timeout_s)
        if full is None:
            raise
        log.warning("job %s: %s", record.id, error)
        outcome, fields = Outcome("failed"), {"error": full, "state_key": ""}
    outbox.stop()
    if not records.close(record.id, record.attempt, outcome.status, fields):
        os._exit(LOST_EXIT)
    context.drop_state()


def _store(record: JobRecord, context: WorkerContext, outcome: Outcome) -> dict[str, Any]:
    """Upload what the job made; the record's fields that point to it."""
    fields: dict[str, Any] = {"error": outcome.error, "state_key": ""}
    if outcome.status == "succeeded":
        if outcome.pages is not None:
            context.store_blob(ROWS, outcome.pages.rows)
            context.store_blob(INDEX, outcome.pages.index)
        fields["result_key"] = context.store_blob("result.json", outcome.result.encode())
        fields["artifacts"] = [artifact.model_dump() for artifact in context.store_artifacts()]
        fields["progress"] = {"fraction": 1.0, "stage": "done", "message": "", "eta_seconds": 0.0}
    if outcome.traceback:
        log.error("job %s failed\n%s", record.id, outcome.traceback)
        fields["traceback_key"] = context.store_blob("traceback.txt", outcome.traceback.encode())
    fields["log_key"] = context.store_log()
    return fields
