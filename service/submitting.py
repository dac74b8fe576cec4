"""Queueing a job from any route: the same refusals, the same answer."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

from fastapi import Request, Response
from pydantic import ValidationError

from models.core.datasets import DatasetRecord, UnknownDatasetError
from models.core.datasets.store import is_dataset_id
from models.core.registry import UnknownMethodError
from service import tracing
from service.auth import Caller
from service.catalog import unknown_model
from service.problems import FieldError, Problem, field_errors, unavailable
from service.reading import unknown_dataset
from service.routing import json_response
from service.schemas.jobs import JobAnswer
from service.services import Services
from workers.errors import (
    IdempotencyConflictError,
    JobSpecError,
    QueueUnavailableError,
    TooManyJobsError,
    UnknownKindError,
)
from workers.kinds import validate
from workers.records import JobSpec

MAX_KEY = 255
POLL_S = 2
BUSY_RETRY_S = 30
QUEUE_RETRY_S = 5


async def submit(services: Services, request: Request, caller: Caller, spec: JobSpec) -> Response:
    """Check ``spec`` whole, store and queue it: 202 with the job, or the job that the same key made before.

    Raises:
        Problem: 404 or 422 naming the field, 422 a used idempotency key, 429 too many jobs, 503 no queue.
    """
    key = idempotency_key(request)
    checked = await _check(services, caller, spec)
    try:
        record, created = await services.jobs.submit(
            checked,
            caller.owner,
            idempotency_key=key,
            request_id=request.state.request_id,
            trace="".join(tracing.contexts([request.state.request_id])),
        )
    except IdempotencyConflictError as error:
        errors = [FieldError("Idempotency-Key", "used before with another request")]
        raise Problem(422, str(error), errors=errors, code="idempotency_conflict") from error
    except TooManyJobsError as error:
        headers = {"Retry-After": str(BUSY_RETRY_S)}
        raise Problem(429, str(error), headers=headers, code="too_many_jobs") from error
    except QueueUnavailableError as error:
        raise no_queue() from error
    headers = {"Location": f"/v1/jobs/{record.id}", "Retry-After": str(POLL_S)}
    status = 202 if created or not record.final else 200
    return json_response(JobAnswer.of(record).model_dump(mode="json"), status, headers)


def no_queue() -> Problem:
    """503 while the queue is away; inference is not affected."""
    return unavailable("the job queue cannot be reached; inference works on", QUEUE_RETRY_S, "queue_unavailable")


def idempotency_key(request: Request) -> str | None:
    """The header ``Idempotency-Key``, where it was sent.

    Raises:
        Problem: 400 for one that is not valid.
    """
    key = request.headers.get("idempotency-key")
    if key is not None and not (0 < len(key) <= MAX_KEY and key.isascii() and key.isprintable()):
        errors = [FieldError("Idempotency-Key", f"1 to {MAX_KEY} printable ASCII characters")]
        raise Problem(400, "the idempotency key is not valid", errors=errors, code="invalid_header")
    return key


async def _check(services: Services, caller: Caller, spec: JobSpec) -> JobSpec:
    """``spec`` with its defaults filled in, its model and data sets there, and the data of a kind that fits."""
    kind = None if spec.dataset is None else (await _dataset(services, caller, spec.dataset, "/dataset")).kind
    try:
        checked = await asyncio.to_thread(validate, services.registry, spec, kind)
    except UnknownKindError as error:
        detail = f"there is no job kind `{spec.kind}`"
        raise Problem(422, detail, errors=[FieldError("/kind", detail)], code="unknown_kind") from error
    except UnknownMethodError as error:
        raise unknown_model(spec.model or "", "/model") from error
    except JobSpecError as error:
        errors = [FieldError(error.field, error.detail)]
        raise Problem(422, error.detail, errors=errors, code="invalid_job") from error
    except ValidationError as error:
        errors = field_errors(error, "/parameters")
        raise Problem(422, "a parameter is not valid", errors=errors, code="invalid_parameters") from error
    if checked.model is not None and not (checked.kind == "train" and "@" not in checked.model):
        await services.catalog.resolve(checked.model, caller)
    for pointer, dataset_id in _named_datasets(checked.parameters, "/parameters"):
        await _dataset(services, caller, dataset_id, pointer)
    return checked


async def _dataset(services: Services, caller: Caller, dataset_id: str, pointer: str) -> DatasetRecord:
    try:
        return await asyncio.to_thread(services.datasets.get, caller.owner, dataset_id)
    except UnknownDatasetError:
        raise unknown_dataset(dataset_id, pointer) from None


def _named_datasets(value: Any, pointer: str) -> Iterator[tuple[str, str]]:
    """Every id of a data set among the parameters, with its pointer."""
    if isinstance(value, str) and is_dataset_id(value):
        yield pointer, value
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _named_datasets(item, f"{pointer}/{name}")
    elif isinstance(value, list):
        for position, item in enumerate(value):
            yield from _named_datasets(item, f"{pointer}/{position}")
