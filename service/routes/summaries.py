"""POST /v1/summaries, and what people prefer among them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from functools import partial
from itertools import islice
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from starlette.responses import StreamingResponse

from models.core.feedback import Comparison, FeedbackStore, RepeatedKeyError
from models.core.store import StoreFullError
from service.auth import Caller, require
from service.ingesting import full
from service.predicting import answer
from service.problems import FieldError, Problem
from service.routing import JsonRoute, json_response
from service.schemas.summaries import ComparisonAnswer, ComparisonRequest, SummaryList, SummaryRequest
from service.services import Services, get_services
from service.submitting import idempotency_key
from service.summarising import Summarise

router = APIRouter(prefix="/v1/summaries", tags=["inference"], route_class=JsonRoute)
operation = Summarise()

ServicesOf = Annotated[Services, Depends(get_services)]
LINES_PER_CHUNK = 256
_LINES: dict[str, Any] = {
    "description": "One comparison a line",
    "content": {"application/jsonl": {"schema": {"$ref": "#/components/schemas/ComparisonAnswer"}}},
}


@router.post("", response_model=SummaryList)
async def create_summaries(
    body: SummaryRequest, request: Request, caller: Annotated[Caller, Depends(require("infer"))], services: ServicesOf
) -> Response:
    """Summarise up to 64 texts; each candidate carries the reward model's score."""
    return await answer(operation, body, request, caller, services)


@router.post("/comparisons", status_code=201, response_model=ComparisonAnswer)
async def create_comparison(
    body: ComparisonRequest,
    request: Request,
    caller: Annotated[Caller, Depends(require("infer"))],
    services: ServicesOf,
) -> Response:
    """Keep a preference for the next training; it is durable when the answer is sent.

    The same `Idempotency-Key` with the same body again answers 200 with the comparison that is there.
    """
    key = idempotency_key(request)
    model = None if body.model is None else (await services.catalog.resolve(body.model, caller)).id
    comparison = Comparison(**body.model_dump(exclude={"model"}), model=model, owner=caller.owner)
    add = partial(FeedbackStore(services.store).add, comparison, idempotency_key=key)
    try:
        kept, created = await asyncio.to_thread(add)
    except RepeatedKeyError as error:
        errors = [FieldError("Idempotency-Key", "used before with another comparison")]
        raise Problem(422, str(error), errors=errors, code="idempotency_conflict") from error
    except StoreFullError as error:
        raise full() from error
    content = ComparisonAnswer(**kept.model_dump()).model_dump(mode="json")
    return json_response(content, 201 if created else 200)


@router.get("/comparisons", response_class=Response, responses={200: _LINES})
async def export_comparisons(
    caller: Annotated[Caller, Depends(require("data"))], services: ServicesOf
) -> StreamingResponse:
    """The caller's comparisons as JSONL, everybody's for an administrator."""
    lines = FeedbackStore(services.store).export(None if caller.admin else caller.owner)
    return StreamingResponse(_chunks(lines), media_type="application/jsonl")


async def _chunks(lines: Iterator[bytes]) -> AsyncIterator[bytes]:
    while chunk := await asyncio.to_thread(lambda: [line + b"\n" for line in islice(lines, LINES_PER_CHUNK)]):
        yield b"".join(chunk)
