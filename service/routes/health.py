"""Liveness, readiness, version and metrics."""

from __future__ import annotations

import asyncio
import platform
import time
from contextlib import suppress
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Depends, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from service import __version__
from service.fleet import gauges
from service.routing import json_response
from service.services import Services, get_services
from workers.client import QueueUnavailableError

router = APIRouter(tags=["operations"])
ServicesOf = Annotated[Services, Depends(get_services)]

log = structlog.get_logger("deepnight.gateway")

QUEUE_LOOK_S = 5.0


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """200 as long as the process answers; depends on nothing outside it."""
    return {"status": "ok"}


@router.get("/readyz")
async def readyz(services: ServicesOf) -> Response:
    """200 when inference works; jobs without Redis or workers are named, and do not take inference down."""
    checks = await look(services)
    ready = checks["serve"] == "ok" and checks["store"] == "ok"
    status = "ready" if all(v == "ok" for v in checks.values()) else ("degraded" if ready else "unavailable")
    headers = None if ready else {"Retry-After": "2"}
    return json_response({"status": status, "checks": checks}, 200 if ready else 503, headers)


@router.get("/version")
async def version() -> dict[str, Any]:
    """What is running."""
    return {"version": __version__, "python": platform.python_version(), "api": "v1"}


@router.get("/metrics")
async def metrics(services: ServicesOf) -> Response:
    """Prometheus metrics of every process of the service, whichever gateway is asked."""
    await look(services)
    await _look_at_replicas(services)
    with suppress(QueueUnavailableError):
        await services.metrics.fleet.exchange(services.jobs, gauges(services))
    text = await asyncio.to_thread(generate_latest, services.metrics.exposed)
    return Response(text, media_type=CONTENT_TYPE_LATEST)


async def look(services: Services) -> dict[str, str]:
    """State of each dependency, ``ok`` or what is wrong; the queue is asked at most every five seconds."""
    checks = {
        "serve": "ok" if services.inference.ready() else "starting",
        "store": "ok" if await services.store_look.answers() else "unreachable",
        **await _check_queue(services),
    }
    for dependency, state in checks.items():
        services.metrics.dependency_up.labels(dependency).set(state == "ok")
    return checks


async def _look_at_replicas(services: Services) -> None:
    """Ask Serve's controller, at most every five seconds."""
    replicas = services.metrics.replicas
    if time.monotonic() - replicas.looked_at < QUEUE_LOOK_S:
        return
    replicas.looked_at = time.monotonic()
    try:
        replicas.latest = await services.inference.replicas()
    except Exception:  # Ray's own errors have no common class; a scrape must not fail with its controller
        log.warning("Serve's controller does not answer", exc_info=True)
        replicas.latest = {}


async def _check_queue(services: Services) -> dict[str, str]:
    queue = services.metrics.queue
    try:
        if queue.latest is None or time.monotonic() - queue.looked_at > QUEUE_LOOK_S:
            queue.keep(await services.jobs.stats())
        elif not await services.jobs.ping():
            queue.lose()
    except QueueUnavailableError:
        queue.lose()
    if queue.latest is None:
        return {"redis": "down", "workers": "unknown"}
    return {"redis": "ok", "workers": "ok" if sum(queue.latest.workers.values()) else "none"}
