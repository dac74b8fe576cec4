"""POST /v1/images/generations: OpenAI's shape, at once, as a stream, or by a job."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response

from service.auth import Caller, require
from service.generating import Generate
from service.predicting import answer
from service.routing import JsonRoute
from service.schemas.images import GenerationRequest, ImageList
from service.services import Services, get_services
from service.streaming import stream_pictures

router = APIRouter(prefix="/v1/images", tags=["inference"], route_class=JsonRoute)
operation = Generate()
_EVENTS: dict[str, Any] = {
    "description": "With `stream`: events `image_generation.partial_image` and `image_generation.completed`",
    "content": {"text/event-stream": {"schema": {"type": "string"}}},
}


@router.post("/generations", response_model=ImageList, responses={200: _EVENTS})
async def create_images(
    body: GenerationRequest,
    request: Request,
    caller: Annotated[Caller, Depends(require("infer"))],
    services: Annotated[Services, Depends(get_services)],
) -> Response:
    """Generate pictures of a class; answered by a job (202) where they need many forward passes and no stream."""
    if body.stream:
        return await stream_pictures(operation, body, request, caller, services)
    return await answer(operation, body, request, caller, services)
