"""POST /v1/classifications: the likeliest classes of pictures, vectors or texts."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from service.auth import Caller, require
from service.operations import Classify
from service.predicting import answer
from service.routing import JsonRoute
from service.schemas.inference import ClassificationList, ClassificationRequest
from service.services import Services, get_services

router = APIRouter(prefix="/v1", tags=["inference"], route_class=JsonRoute)
operation = Classify()


@router.post("/classifications", response_model=ClassificationList)
async def create_classifications(
    body: ClassificationRequest,
    request: Request,
    caller: Annotated[Caller, Depends(require("infer"))],
    services: Annotated[Services, Depends(get_services)],
) -> Response:
    """Classify up to 2048 inputs as one batch."""
    return await answer(operation, body, request, caller, services)
