"""POST, GET and DELETE of queued jobs, their events, results and files."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Depends, Path, Query, Request, Response

from service.auth import Caller, require
from service.content import Content, content_response
from service.events import last_event_id, streams_of
from service.predicting import while_connected
from service.problems import FieldError, Problem
from service.results import result_page
from service.routing import JsonRoute, json_response
from service.schemas.jobs import JobAnswer, JobList, JobRequest
from service.services import Services, get_services
from service.submitting import POLL_S, no_queue, submit
from workers.client import JobRecord, JobSpec, QueueUnavailableError, UnknownJobError
from workers.records import Status

router = APIRouter(prefix="/v1/jobs", tags=["jobs"], route_class=JsonRoute)

CallerOf = Annotated[Caller, Depends(require("jobs"))]
ServicesOf = Annotated[Services, Depends(get_services)]
JobId = Annotated[str, Path(max_length=64)]

INLINE_TYPES = ("image/png", "text/html")


@router.post("", status_code=202, response_model=JobAnswer)
async def create_job(body: JobRequest, request: Request, caller: CallerOf, services: ServicesOf) -> Response:
    """Queue a job. With an `Idempotency-Key` the same request again is the same job."""
    return await submit(services, request, caller, JobSpec.model_validate(body.model_dump()))


@router.get("", response_model=JobList)
async def list_jobs(
    caller: CallerOf,
    services: ServicesOf,
    status: Annotated[Status | None, Query()] = None,
    kind: Annotated[str | None, Query(max_length=64)] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 20,
    after: Annotated[str | None, Query(max_length=64)] = None,
) -> Response:
    """The caller's jobs, the newest first; parameters too large for a list are left out."""
    owner = None if caller.admin else caller.owner
    try:
        records, has_more = await services.jobs.list(owner, status, kind, limit, after)
    except UnknownJobError:
        raise Problem(422, "unknown cursor", errors=[FieldError("after", "not the id of a listed job")]) from None
    except QueueUnavailableError as error:
        raise no_queue() from error
    answer = JobList(data=[JobAnswer.of(record) for record in records], has_more=has_more)
    return json_response(answer.model_dump(mode="json"))


@router.get("/{job_id}", response_model=JobAnswer)
async def get_job(
    job_id: JobId,
    request: Request,
    caller: CallerOf,
    services: ServicesOf,
    wait: Annotated[float, Query(ge=0, le=60, description="seconds to wait for the job's end")] = 0,
) -> Response:
    """One job; with `wait` as soon as it has ended."""
    record = await _get(services, caller, job_id)
    if wait > 0 and not record.final:
        try:
            record = await while_connected(request, services.jobs.wait(job_id, wait))
        except UnknownJobError:
            raise _unknown(job_id) from None
        except QueueUnavailableError as error:
            raise no_queue() from error
    return await _answer(services, caller, record)


@router.get("/{job_id}/events", response_class=Response, responses={200: {"content": {"text/event-stream": {}}}})
async def get_events(job_id: JobId, request: Request, caller: CallerOf, services: ServicesOf) -> Response:
    """The job's events as they happen, from `Last-Event-ID` on; ends after the final status."""
    last_id = last_event_id(request)
    await _get(services, caller, job_id)
    return streams_of(request).respond(services.jobs, job_id, last_id, caller)


@router.get("/{job_id}/result", response_model=dict[str, Any])
async def get_result(
    job_id: JobId,
    request: Request,
    caller: CallerOf,
    services: ServicesOf,
) -> Response:
    """What the job found; the long list of a kind is paged by `offset` and `limit` and filtered as its card says."""
    record = await _get(services, caller, job_id)
    if record.status == "failed":
        raise _failure(record)
    if record.result_key is None or record.status != "succeeded":
        headers = {} if record.final else {"Retry-After": str(POLL_S)}
        raise Problem(409, f"the job is {record.status}: it has no result", headers=headers, code="no_result")
    found = services.registry.job_kinds().get(record.kind)
    kind = None if found is None else found[1]
    query = dict(request.query_params)
    result = await asyncio.to_thread(result_page, services.store, record.result_key, kind, query)
    return json_response(result)


@router.get("/{job_id}/artifacts/{name}", response_class=Response)
async def get_artifact(job_id: JobId, name: str, request: Request, caller: CallerOf, services: ServicesOf) -> Response:
    """A file that the job made; ranges and entity tags are honoured."""
    record = await _get(services, caller, job_id)
    artifact = next((a for a in record.artifacts if a.name == name), None)
    if artifact is None or not await asyncio.to_thread(services.store.exists, artifact.key):
        raise Problem(404, f"the job has no artifact `{name[:100]}`", code="artifact_not_found")
    content = Content(
        open=partial(services.store.open, artifact.key),
        size=artifact.bytes,
        sha256=artifact.sha256,
        media_type=artifact.media_type,
        filename=artifact.name,
        inline=artifact.media_type.partition(";")[0] in INLINE_TYPES,
    )
    return content_response(request, content)


@router.delete("/{job_id}", status_code=202, response_model=JobAnswer)
async def delete_job(job_id: JobId, caller: CallerOf, services: ServicesOf) -> Response:
    """Cancel the job; one that has ended stays as it is (200)."""
    return await _cancel(services, caller, job_id)


@router.post("/{job_id}/cancel", status_code=202, response_model=JobAnswer)
async def cancel_job(job_id: JobId, caller: CallerOf, services: ServicesOf) -> Response:
    """Cancel the job; one that has ended stays as it is (200)."""
    return await _cancel(services, caller, job_id)


async def _cancel(services: Services, caller: Caller, job_id: str) -> Response:
    before = await _get(services, caller, job_id)
    try:
        record = before if before.final else await services.jobs.cancel(job_id)
    except UnknownJobError:
        raise _unknown(job_id) from None
    except QueueUnavailableError as error:
        raise no_queue() from error
    return await _answer(services, caller, record, 200 if before.final else 202)


async def _get(services: Services, caller: Caller, job_id: str) -> JobRecord:
    try:
        record = await services.jobs.get(job_id)
    except QueueUnavailableError as error:
        raise no_queue() from error
    if record is None or not (caller.admin or record.owner == caller.owner):
        raise _unknown(job_id)
    return record


async def _answer(services: Services, caller: Caller, record: JobRecord, status: int = 200) -> Response:
    parameters, traceback = None, None
    if record.parameters_key is not None:
        parameters = orjson.loads(await asyncio.to_thread(services.store.get, record.parameters_key))
    if record.traceback_key is not None and caller.admin:
        traceback = (await asyncio.to_thread(services.store.get, record.traceback_key)).decode("utf-8", "replace")
    answer = JobAnswer.of(record, parameters=parameters, traceback=traceback)
    headers = {} if record.final else {"Retry-After": str(POLL_S)}
    return json_response(answer.model_dump(mode="json"), status, headers)


def _failure(record: JobRecord) -> Problem:
    """The job's own problem. A job that broke inside is a conflict here: this request itself was answered."""
    error = record.error or {}
    status = int(error.get("status", 500))
    errors = [FieldError(str(item["field"]), str(item["detail"])) for item in error.get("errors", [])]
    detail = str(error.get("detail", "the job failed"))
    kind = str(error.get("type", "about:blank")).removeprefix("urn:deepnight:problem:")
    code = "job_failed" if kind == "about:blank" else kind
    return Problem(status if 400 <= status < 500 else 409, detail, errors=errors, code=code)


def _unknown(job_id: str) -> Problem:
    return Problem(404, f"there is no job `{job_id[:100]}`", code="job_not_found")
