"""The application: routes on services. The same under uvicorn, in a Serve ingress, and on the in-process backend."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import structlog
from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from service import __version__, openapi, problems, tracing
from service.auth import Authenticator
from service.fleet import keep_sharing
from service.metrics import Metrics
from service.middleware import RequestContext
from service.ratelimit import RateLimiter
from service.routes import ROUTERS
from service.routing import Shortcut
from service.services import Services, make_services
from service.settings import Settings
from service.tracing import TracedRequests

log = structlog.get_logger("deepnight.gateway")

DESCRIPTION = """Deepnight serves published methods: image embeddings, optimal-transport distances, and queued jobs such
as the search for mislabeled samples in a data set of yours."""


class InsecureError(RuntimeError):
    """Other machines could use the service without a key."""


class Gateway(FastAPI):
    """The application with its own outermost layer, and the shortcut to predictions before FastAPI's layers."""

    def __init__(self, metrics: Metrics, settings: Settings, **options: Any) -> None:
        self._metrics = metrics
        self._settings = settings
        super().__init__(**options)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Lead requests to the layers at once: FastAPI's own way there looks for telemetry that nothing here uses."""
        if scope["type"] != "http" or self.middleware_stack is None:
            await super().__call__(scope, receive, send)
            return
        scope["app"] = self
        await self.middleware_stack(scope, receive, send)

    def build_middleware_stack(self) -> ASGIApp:
        """Request context, shortcut, FastAPI's own stack."""
        answering = Shortcut(super().build_middleware_stack(), ROUTERS)
        return RequestContext(
            TracedRequests(answering) if tracing.enabled() else answering,
            metrics=self._metrics,
            max_body=self._settings.max_body_bytes,
            streamed=("/v1/datasets",),
        )


def create_app(settings: Settings, *, make: Callable[[Settings, Metrics], Services] = make_services) -> FastAPI:
    """Build the application for ``settings``.

    Args:
        make: builds the services; tests give their own.
    """
    metrics = Metrics()
    services = make(settings, metrics)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        if not settings.loopback and not await app.state.authenticator.configured():
            raise InsecureError(
                f"{settings.host} can be reached by others and no API key exists: "
                "make one with `deepnight keys create` or set DEEPNIGHT_API_KEYS"
            )
        await services.inference.start()
        sharing = asyncio.create_task(keep_sharing(services))
        try:
            yield
        finally:
            await services.inference.stop()
            sharing.cancel()
            await metrics.fleet.leave(services.jobs)
            await services.jobs.close()

    app = Gateway(
        metrics,
        settings,
        title="Deepnight",
        version=__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        responses=openapi.ERROR_RESPONSES,
        separate_input_output_schemas=False,
    )
    app.state.services = services
    app.state.authenticator = Authenticator(
        services.keys,
        settings.api_keys,
        open_on_loopback=settings.loopback,
        limiter=RateLimiter(settings.requests_per_minute, metrics, services.jobs),
    )
    for router in ROUTERS:
        app.include_router(router)
    problems.install(app)
    app.openapi = lambda: openapi.document(app, services.registry)  # type: ignore[method-assign]
    return app
