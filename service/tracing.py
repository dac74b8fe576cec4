"""Traces by OpenTelemetry, from the request to the replica's call and the job's run.

Off unless ``OTEL_EXPORTER_OTLP_ENDPOINT`` (or ``OTEL_EXPORTER_OTLP_TRACES_ENDPOINT``) names a collector that speaks
OTLP over HTTP; while off, nothing of OpenTelemetry is imported. A batch has many requests: the replica's span belongs
to the first one's trace and is linked to the others. Spans hold ids, names, sizes and times, never keys or payloads.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")

_open: dict[str, str] = {}


@cache
def enabled() -> bool:
    """Whether somebody wants traces."""
    return any(os.environ.get(name) for name in ENDPOINTS) and os.environ.get("OTEL_SDK_DISABLED", "") != "true"


def contexts(request_ids: Sequence[str]) -> tuple[str, ...]:
    """What carries the traces of requests that are being answered to another process, as ``traceparent``."""
    return tuple(_open[request_id] for request_id in request_ids if request_id in _open) if _open else ()


class TracedRequests:
    """A span for each request, below the caller's where the request names one. Needs the request's id in its state."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; other scopes pass through."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        from opentelemetry.trace import SpanKind, Status, StatusCode

        state: dict[str, Any] = scope["state"]
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        parent = _extract(headers.get("traceparent", ""))
        with _tracer().start_as_current_span(scope["method"], context=parent, kind=SpanKind.SERVER) as span:
            _open[state["request_id"]] = _inject(span)

            async def watched(message: Message) -> None:
                if message["type"] == "http.response.start":
                    span.set_attribute("http.response.status_code", message["status"])
                    if message["status"] >= 500:
                        span.set_status(Status(StatusCode.ERROR))
                await send(message)

            try:
                await self.app(scope, receive, watched)
            finally:
                _open.pop(state["request_id"], None)  # a caller may use an id twice
                _describe(span, scope, state)


@contextmanager
def call(model: str, inputs: int, parents: Sequence[str]) -> Iterator[None]:
    """A span around a replica's call for the requests ``parents``."""
    if not parents or not enabled():
        yield
        return
    from opentelemetry.trace import Link, SpanKind, get_current_span

    links = [Link(get_current_span(_extract(parent)).get_span_context()) for parent in parents[1:]]
    attributes = {"deepnight.model": model, "deepnight.batch": inputs, "deepnight.requests": len(parents)}
    with _tracer().start_as_current_span(
        "predict", context=_extract(parents[0]), kind=SpanKind.SERVER, links=links, attributes=attributes
    ):
        yield


@contextmanager
def job(kind: str, job_id: str, attempt: int, parent: str) -> Iterator[None]:
    """A span around a run of a job; sent when it ends, as the process then does too."""
    if not enabled():
        yield
        return
    from opentelemetry.trace import SpanKind

    attributes = {"deepnight.job": job_id, "deepnight.kind": kind, "deepnight.attempt": attempt}
    try:
        with _tracer().start_as_current_span(
            f"job {kind}", context=_extract(parent), kind=SpanKind.CONSUMER, attributes=attributes
        ):
            yield
    finally:
        _provider().force_flush(5000)


def _describe(span: Span, scope: Scope, state: dict[str, Any]) -> None:
    route = getattr(scope.get("route"), "path", "unmatched")
    span.update_name(f"{scope['method']} {route}")
    span.set_attribute("http.request.method", scope["method"])
    span.set_attribute("http.route", route)
    span.set_attribute("deepnight.request_id", state["request_id"])
    if "caller" in state:
        span.set_attribute("deepnight.key", state["caller"].name)
    for name, value in state.get("log", {}).items():
        span.set_attribute(f"deepnight.{name}", value)


@cache
def _provider() -> TracerProvider:
    """This process's own provider: a global one would also switch on what libraries bring along."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import SERVICE_NAME, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(
        resource=Resource.create({SERVICE_NAME: os.environ.get("OTEL_SERVICE_NAME", "deepnight")})
    )
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


def _tracer() -> Any:
    return _provider().get_tracer("deepnight")


def _extract(traceparent: str) -> Context:
    from opentelemetry.context import Context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    return TraceContextTextMapPropagator().extract({"traceparent": traceparent}, Context())


def _inject(span: Span) -> str:
    context = span.get_span_context()
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"
