"""POST /v1/embeddings: OpenAI's shape, for pictures, vectors and texts."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from service.auth import Caller, require
from service.operations import Embed
from service.predicting import answer
from service.routing import JsonRoute
from service.schemas.inference import EmbeddingList, EmbeddingRequest
from service.services import Services, get_services

router = APIRouter(prefix="/v1", tags=["inference"], route_class=JsonRoute)
operation = Embed()


@router.post("/embeddings", response_model=EmbeddingList)
async def create_embeddings(
    body: EmbeddingRequest,
    request: Request,
    caller: Annotated[Caller, Depends(require("infer"))],
    services: Annotated[Services, Depends(get_services)],
) -> Response:
    """Embed up to 2048 inputs as one batch."""
    return await answer(operation, body, request, caller, services)
