"""Parsing uploads in processes of their own, a few at a time, with the answers as problems."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
import sys

import structlog
from fastapi import Request

from models.core.datasets import DatasetOptions, DatasetRecord
from models.core.datasets.ingest import IngestAnswer, IngestTask
from models.core.store import StoreFullError, StoreUnavailableError
from service.problems import FieldError, Problem, unavailable
from service.services import Services
from service.uploads import Upload

log = structlog.get_logger("deepnight.datasets")

AT_ONCE = 2
STOP_S = 3.0
RETRY_WHEN_FULL_S = "60"


async def ingest(request: Request, services: Services, owner: str, upload: Upload) -> tuple[DatasetRecord, bool]:
    """Parse and store an upload; whether it is new is the second of the answer.

    Raises:
        Problem: 422 naming what is wrong with the file, 507 the store is full.
        StoreUnavailableError: the store does not answer.
    """
    task = _task(services, owner).model_copy(
        update={
            "path": upload.path,
            "filename": upload.filename,
            "name": upload.name,
            "options": upload.options,
            "sha256": upload.sha256,
        }
    )
    answer = await _run(request, task)
    if answer.record is None:
        raise Problem(500, "the parser gave no answer; the request id names it in the logs")
    return answer.record, answer.created


async def warm(request: Request, services: Services, record: DatasetRecord) -> None:
    """Put the parsed form of a data set into this machine's cache.

    Raises:
        Problem: 404 it was deleted meanwhile, 507 the disk is full.
        StoreUnavailableError: the store does not answer.
    """
    await _run(request, _task(services, record.owner).model_copy(update={"dataset": record.id}))


def _task(services: Services, owner: str) -> IngestTask:
    settings = services.settings
    return IngestTask(
        store=settings.store,
        cache=services.datasets.cache,
        limits=settings.dataset_limits,
        parent=os.getpid(),
        owner=owner,
        options=DatasetOptions(),
    )


async def _run(request: Request, task: IngestTask) -> IngestAnswer:
    async with _slots(request):
        raw = await _spawn(task)
    answer = IngestAnswer.model_validate_json(raw)
    if answer.outcome == "refused":
        errors = [FieldError(answer.field, answer.detail)]
        raise Problem(422, f"the data set cannot be used: {answer.detail}", errors=errors, code="invalid_dataset")
    if answer.outcome == "full":
        raise full()
    if answer.outcome == "away":
        raise StoreUnavailableError(answer.detail)
    if answer.outcome == "unknown":
        raise Problem(404, "the data set was deleted", code="dataset_not_found")
    return answer


def full() -> Problem:
    """507 for a disk without room."""
    return Problem(507, "the store is full", headers={"Retry-After": RETRY_WHEN_FULL_S}, code="store_full")


def is_full(error: OSError) -> bool:
    """Whether ``error`` says that a disk has no room."""
    return isinstance(error, StoreFullError) or error.errno in (errno.ENOSPC, errno.EDQUOT)


async def _spawn(task: IngestTask) -> bytes:
    """Run a parser; its answer.

    Not by the loop's own subprocesses: theirs run the fork handlers of every library in the child (Ray's and gRPC's
    among them), and raise where the child has ended before it has read its task.
    """
    starting = asyncio.create_task(asyncio.to_thread(_start))
    try:
        process = await asyncio.shield(starting)
    except asyncio.CancelledError:
        _stop(await starting)
        raise
    try:
        raw, errors = await asyncio.to_thread(process.communicate, task.model_dump_json().encode())
    finally:
        await asyncio.shield(asyncio.to_thread(_stop, process))
    if process.returncode != 0:
        log.error("the parser died", returncode=process.returncode, stderr=errors.decode(errors="replace")[-4000:])
        raise unavailable("the file could not be read: its parser died", 10, "parser_died")
    return raw


def _start() -> subprocess.Popen[bytes]:
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-m", "models.core.datasets.ingest"], stdin=pipe, stdout=pipe, stderr=pipe)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End a parser whose answer nobody waits for; it cleans up on SIGTERM."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _slots(request: Request) -> asyncio.Semaphore:
    state = request.app.state
    if not hasattr(state, "ingest_slots"):
        state.ingest_slots = asyncio.Semaphore(AT_ONCE)
    slots: asyncio.Semaphore = state.ingest_slots
    return slots
