"""POST /v1/distances: optimal transport between point clouds or labelled data sets."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from service.auth import Caller, require
from service.operations import Compare
from service.predicting import answer
from service.routing import JsonRoute
from service.schemas.inference import DistanceAnswer, DistanceRequest
from service.services import Services, get_services

router = APIRouter(prefix="/v1", tags=["inference"], route_class=JsonRoute)
operation = Compare()


@router.post("/distances", response_model=DistanceAnswer)
async def create_distance(
    body: DistanceRequest,
    request: Request,
    caller: Annotated[Caller, Depends(require("infer"))],
    services: Annotated[Services, Depends(get_services)],
) -> Response:
    """Compare two sides; answered by a job (202) where they are too large."""
    return await answer(operation, body, request, caller, services)
