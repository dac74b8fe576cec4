"""KServe's Open Inference Protocol for every model that predicts: JSON and binary tensors."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import orjson
from fastapi import APIRouter, Depends, Request, Response

from service import __version__
from service.auth import Caller, require
from service.catalog import Served
from service.inputs import ItemLimits
from service.operation import costs_too_much
from service.operations import OPERATIONS
from service.predicting import predict
from service.problems import FieldError, Problem
from service.routing import json_response
from service.schemas.v2 import InferResponse, ModelMetadata, ServerMetadata
from service.services import Services, get_services
from service.signatures import describe_inputs, describe_outputs, read_inputs, write_outputs
from service.tensors import decode_tensors, encode_tensor, split_body

router = APIRouter(prefix="/v2", tags=["open inference protocol"])

CallerOf = Annotated[Caller, Depends(require("infer"))]
ServicesOf = Annotated[Services, Depends(get_services)]
HEADER_LENGTH = "Inference-Header-Content-Length"
BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": {"$ref": "#/components/schemas/InferRequest"}},
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        },
    }
}


@router.get("", response_model=ServerMetadata)
async def server_metadata() -> ServerMetadata:
    """Name, version and extensions."""
    return ServerMetadata(name="deepnight", version=__version__, extensions=["binary_tensor_data"])


@router.get("/health/live")
async def live() -> dict[str, bool]:
    """200 as long as the process answers."""
    return {"live": True}


@router.get("/health/ready")
async def ready(services: ServicesOf) -> Response:
    """200 when inference works."""
    works = services.inference.ready()
    return json_response({"ready": works}, 200 if works else 503)


@router.get("/models/{model}", response_model=ModelMetadata)
@router.get("/models/{model}/versions/{version}", response_model=ModelMetadata)
async def model_metadata(model: str, caller: CallerOf, services: ServicesOf, version: str | None = None) -> Response:
    """Names, types and shapes of a model's tensors."""
    served = await _resolve(services, caller, model, version)
    versions = await asyncio.to_thread(services.versions.list, served.version.entry.slug)
    return json_response(
        {
            "name": served.version.entry.slug,
            "versions": [v.name for v in versions if v.shipped or caller.admin or v.record.owner == caller.owner],
            "platform": "deepnight",
            "inputs": [{k: v for k, v in item.items() if k != "optional"} for item in describe_inputs(served)],
            "outputs": describe_outputs(served),
        }
    )


@router.get("/models/{model}/ready")
@router.get("/models/{model}/versions/{version}/ready")
async def model_ready(model: str, caller: CallerOf, services: ServicesOf, version: str | None = None) -> Response:
    """200 when the model answers; a cold one is loaded by its first request."""
    served = await _resolve(services, caller, model, version)
    works = services.inference.ready() and services.inference.states().get(served.id) != "failed"
    return json_response({"name": served.version.entry.slug, "ready": works}, 200 if works else 503)


@router.post("/models/{model}/infer", response_model=InferResponse, openapi_extra=BODY)
@router.post("/models/{model}/versions/{version}/infer", response_model=InferResponse, openapi_extra=BODY)
async def infer(
    model: str, request: Request, caller: CallerOf, services: ServicesOf, version: str | None = None
) -> Response:
    """Predict from tensors."""
    served = await _resolve(services, caller, model, version)
    body, binary = split_body(await request.body(), request.headers.get(HEADER_LENGTH))
    params = OPERATIONS[served.version.entry.card.capability].method_params(_parameters(body), served)
    wanted, default_binary = _wanted(body, served)
    tensors = decode_tensors(body.get("inputs"), binary)
    inputs = await asyncio.to_thread(read_inputs, tensors, served, ItemLimits.of(services.settings))
    if costs_too_much(served.version.entry, len(inputs), params):
        raise Problem(
            413, "too many forward passes to be answered at once; the /v1 route makes a job", code="too_large"
        )
    outputs = write_outputs(await predict(services, request, served, inputs, params, "/inputs"), served)
    answer: dict[str, Any] = {"model_name": served.version.entry.slug, "model_version": served.version.name}
    if isinstance(body.get("id"), str):
        answer["id"] = body["id"]
    encoded = [encode_tensor(name, outputs[name], wanted.get(name, default_binary)) for name in wanted or outputs]
    answer["outputs"] = [described for described, _ in encoded]
    return _respond(answer, b"".join(raw for _, raw in encoded))


def _respond(answer: dict[str, Any], binary: bytes) -> Response:
    if not binary:
        return json_response(answer)
    header = orjson.dumps(answer)
    headers = {HEADER_LENGTH: str(len(header))}
    return Response(header + binary, headers=headers, media_type="application/octet-stream")


async def _resolve(services: Services, caller: Caller, model: str, version: str | None) -> Served:
    served = await services.catalog.resolve(f"{model}@{version}" if version else model, caller, "model")
    if served.version.entry.card.capability not in OPERATIONS:
        raise Problem(400, f"`{served.id}` does not predict from tensors", code="wrong_capability")
    return served


def _parameters(body: dict[str, Any]) -> dict[str, Any]:
    """The method's parameters: the request's, less those that the protocol itself defines."""
    given = body.get("parameters") or {}
    if not isinstance(given, dict):
        raise Problem(400, "parameters is not an object", errors=[FieldError("/parameters", "expected an object")])
    return {name: value for name, value in given.items() if name != "binary_data_output"}


def _wanted(body: dict[str, Any], served: Served) -> tuple[dict[str, bool], bool]:
    """The outputs asked for and whether each is wanted in binary, and the default for all."""
    parameters = body.get("parameters") or {}
    default = bool(parameters.get("binary_data_output", False))
    known = [item["name"] for item in describe_outputs(served)]
    wanted: dict[str, bool] = {}
    outputs = body.get("outputs") or []
    if not isinstance(outputs, list):
        raise Problem(400, "outputs is not a list", errors=[FieldError("/outputs", "expected a list")])
    for index, output in enumerate(outputs):
        name = output.get("name") if isinstance(output, dict) else None
        if not isinstance(name, str) or name not in known:
            errors = [FieldError(f"/outputs/{index}/name", f"expected one of {', '.join(known)}")]
            raise Problem(400, f"there is no output `{str(name)[:100]}`", errors=errors, code="unknown_output")
        wanted[name] = bool((output.get("parameters") or {}).get("binary_data", default))
    return wanted, default
