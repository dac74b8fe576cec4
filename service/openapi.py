"""The OpenAPI document: FastAPI's, with every method's own parameters and the problem documents."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from models.core.registry import Registry
from service.operations import OPERATIONS
from service.schemas.v2 import InferRequest

PROBLEM: dict[str, Any] = {
    "title": "Problem",
    "description": "RFC 9457 problem document",
    "type": "object",
    "required": ["type", "title", "status", "detail", "instance"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "instance": {"type": "string", "description": "the request id"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["field", "detail"],
                "properties": {"field": {"type": "string"}, "detail": {"type": "string"}},
            },
        },
        "error": {"description": "OpenAI's error object on OpenAI-shaped routes, a string on /v2"},
    },
}

_CONTENT = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
ERROR_RESPONSES: dict[int | str, dict[str, Any]] = {
    "4XX": {"description": "The request cannot be answered as sent", "content": _CONTENT},
    "5XX": {"description": "The service cannot answer now", "content": _CONTENT},
}


def document(app: FastAPI, registry: Registry) -> dict[str, Any]:
    """The document, built once."""
    if app.openapi_schema is None:
        built = get_openapi(
            title=app.title,
            version=app.version,
            description=app.description,
            routes=app.routes,
            license_info=app.license_info,
            separate_input_output_schemas=False,
        )
        schemas = built["components"]["schemas"]
        schemas["Problem"] = PROBLEM
        infer = InferRequest.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(infer.pop("$defs"))
        schemas["InferRequest"] = infer
        _drop_default_422(built)
        _add_parameters(schemas, registry)
        app.openapi_schema = built
    return app.openapi_schema


def _drop_default_422(built: dict[str, Any]) -> None:
    """FastAPI documents its own 422 body, which this service never sends."""
    for path in built["paths"].values():
        for operation in path.values():
            operation.get("responses", {}).pop("422", None)
    for name in ("HTTPValidationError", "ValidationError"):
        built["components"]["schemas"].pop(name, None)


def _add_parameters(schemas: dict[str, Any], registry: Registry) -> None:
    """Make ``parameters`` of each inference request any of its methods' own types."""
    for capability, operation in OPERATIONS.items():
        references = []
        for slug, entry in registry.items():
            if entry.card.capability != capability:
                continue
            name = f"{slug}-parameters"
            schema = operation.parameters_schema(entry, "#/components/schemas/{model}")
            schemas.update(schema.pop("$defs", {}))
            schemas[name] = schema | {"title": f"Parameters of {slug}"}
            references.append({"$ref": f"#/components/schemas/{name}"})
        body = schemas.get(operation.request.__name__)
        if references and body is not None:
            body["properties"]["parameters"] = {"anyOf": references, "default": {}}
