"""GET /v1/models and the versions of methods."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Response

from models.core.registry import MethodEntry, UnknownMethodError, parse_model_id
from models.core.versions import Version
from service.auth import Caller, require
from service.catalog import Served, visible
from service.operations import OPERATIONS
from service.problems import FieldError, Problem
from service.routing import JsonRoute, json_response
from service.schemas.models import DefaultRequest, ModelCard, ModelFigures, ModelList
from service.services import Services, get_services

router = APIRouter(prefix="/v1/models", tags=["models"], route_class=JsonRoute)

CallerOf = Annotated[Caller, Depends(require("infer"))]
Admin = Annotated[Caller, Depends(require("admin"))]
ServicesOf = Annotated[Services, Depends(get_services)]


@router.get("", response_model=ModelList)
async def list_models(
    caller: CallerOf,
    services: ServicesOf,
    limit: Annotated[int, Query(ge=1, le=1000)] = 1000,
    after: Annotated[str | None, Query(max_length=200)] = None,
) -> Response:
    """Every version that the caller may use."""
    cards = await asyncio.to_thread(_all_cards, services, caller)
    if after is not None:
        positions = [i for i, card in enumerate(cards) if card["id"] == after]
        if not positions:
            raise Problem(422, "unknown cursor", errors=[FieldError("after", "not the id of a listed model")])
        cards = cards[positions[0] + 1 :]
    return json_response({"object": "list", "data": cards[:limit], "has_more": len(cards) > limit})


@router.get("/{model}", response_model=ModelCard)
async def get_model(model: str, caller: CallerOf, services: ServicesOf) -> Response:
    """The card of one version, with the JSON schema of its parameters."""
    served = await services.catalog.resolve(model, caller, "model")
    default = await asyncio.to_thread(services.versions.default, served.version.entry.slug)
    card = await asyncio.to_thread(_card, services, served, default)
    return json_response(card | {"id": model if model == served.version.entry.slug else served.id})


@router.get("/{model}/figures", response_model=ModelFigures)
async def get_figures(model: str, caller: CallerOf, services: ServicesOf) -> Response:
    """Everything that was measured of one version."""
    served = await services.catalog.resolve(model, caller, "model")
    figures = (await asyncio.to_thread(services.catalog.checkpoint, served)).figures
    if figures is None:
        raise Problem(404, f"`{served.id}` was never evaluated: submit an `evaluate` job", code="not_found")
    return json_response({"object": "figures", "model": served.id, **figures.model_dump(mode="json")})


@router.put("/{slug}/default", response_model=ModelCard)
async def put_default(slug: str, body: DefaultRequest, caller: Admin, services: ServicesOf) -> Response:
    """Choose the version that the bare slug means."""
    served = await services.catalog.resolve(f"{slug}@{body.version}", caller, "/version")
    await asyncio.to_thread(services.versions.set_default, served.version)
    services.catalog.forget()
    return json_response(await asyncio.to_thread(_card, services, served, served.version.name))


@router.delete("/{model}", status_code=204)
async def delete_version(model: str, caller: Admin, services: ServicesOf) -> Response:
    """Delete a trained version; a shipped one stays."""
    if parse_model_id(model)[1] is None:
        raise Problem(422, "name the version", errors=[FieldError("model", "slug@version")], code="invalid")
    served = await services.catalog.resolve(model, caller, "model")
    if served.version.shipped:
        raise Problem(409, "a shipped version cannot be deleted", code="shipped_version")
    await asyncio.to_thread(services.versions.delete, served.version)
    services.catalog.forget()
    return Response(status_code=204)


def _all_cards(services: Services, caller: Caller) -> list[dict[str, Any]]:
    cards = []
    for slug in services.registry:
        versions = [v for v in services.versions.list(slug) if visible(v, caller)]
        default = services.versions.default(slug) if versions else ""
        cards += [_card(services, _served(services, version), default) for version in versions]
    return cards


def _served(services: Services, version: Version) -> Served:
    return Served(version, services.versions.checkpoint(version).config)


def _card(services: Services, served: Served, default: str) -> dict[str, Any]:
    entry, config = served.version.entry, served.config
    card = entry.card
    figures = services.versions.checkpoint(served.version).figures
    return {
        "id": served.id,
        "object": "model",
        "created": int(served.version.record.created_at),
        "owned_by": "deepnight" if served.version.shipped else served.version.record.owner,
        "slug": entry.slug,
        "version": served.version.name,
        "default": served.version.name == default,
        "state": services.inference.states().get(served.id, "cold"),
        "capability": card.capability,
        "title": card.title,
        "description": card.description,
        "use_when": card.use_when,
        "limits": card.limits,
        "licence": card.licence,
        "paper": card.paper.model_dump(),
        "input": {"description": card.input, **config.input.model_dump(mode="json")},
        "output": {"description": card.output, **config.outputs},
        "classes": config.class_names,
        "parameters": _parameters(entry),
        "job_kinds": _job_kinds(services, entry.slug),
        "presets": {name: preset.model_dump(mode="json") for name, preset in entry.presets.items()},
        "figures": [f.model_dump(mode="json") for f in figures.figures if f.headline] if figures else [],
    }


def _parameters(entry: MethodEntry) -> dict[str, Any]:
    operation = OPERATIONS.get(entry.card.capability)
    return operation.parameters_schema(entry) if operation else entry.params.model_json_schema()


def _job_kinds(services: Services, slug: str) -> list[dict[str, Any]]:
    try:
        entry = services.registry[slug]
    except UnknownMethodError:
        return []
    kinds = [
        {"kind": job.kind, "title": job.title, "parameters": entry.model(job.parameters).model_json_schema()}
        for job in entry.card.jobs
    ]
    if entry.card.trainable:
        kinds.append({"kind": "train", "title": "Train a version", "parameters": entry.config.model_json_schema()})
    return [*kinds, {"kind": "evaluate", "title": "Measure a version", "parameters": {"type": "object"}}]
