"""What surrounds every request: its id, its limits, its metrics and its one log line. Pure ASGI."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import logs
from service.metrics import Metrics
from service.problems import Problem, problem_response

SANE_ID = re.compile(r"^[\x21-\x7e]{1,128}$")
UNLOGGED = frozenset({"/healthz", "/readyz", "/metrics"})


class RequestContext:
    """Gives each request an id, bounds its body, counts it and logs one line when it is answered.

    Args:
        max_body: bytes that a body may have, declared or streamed.
        streamed: path prefixes whose routes bound their own bodies.
    """

    def __init__(self, app: ASGIApp, *, metrics: Metrics, max_body: int, streamed: Iterable[str]) -> None:
        self.app = app
        self._metrics = metrics
        self._max_body = max_body
        self._streamed = tuple(streamed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; other scopes pass through."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = time.perf_counter()
        headers = dict(scope["headers"])
        given = headers.get(b"x-request-id", b"").decode("latin-1")
        request_id = given if SANE_ID.match(given) else f"req_{os.urandom(16).hex()}"
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        status = 500

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"].append((b"x-request-id", request_id.encode("latin-1")))
                for name, value in state.get("answer_headers", {}).items():
                    message["headers"].append((name.lower().encode("latin-1"), value.encode("latin-1")))
            await send(message)

        self._metrics.in_flight.inc()
        try:
            if self._bounded(scope):
                receive = self._bound(headers, receive)
            await self.app(scope, receive, send_with_headers)
        except Problem as problem:  # raised by the bound while a route reads the body
            await problem_response(problem, Request(scope))(scope, receive, send_with_headers)
        finally:
            self._metrics.in_flight.dec()
            self._account(scope, state, status, time.perf_counter() - started)

    def _bounded(self, scope: Scope) -> bool:
        return not (scope["method"] == "POST" and scope["path"].startswith(self._streamed))

    def _bound(self, headers: dict[bytes, bytes], receive: Receive) -> Receive:
        declared = headers.get(b"content-length", b"")
        if declared.isdigit():
            if int(declared) > self._max_body:
                raise self._too_large()
            return receive  # the server reads no more than was declared
        received = 0

        async def bounded() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._max_body:
                raise self._too_large()
            return message

        return bounded

    def _too_large(self) -> Problem:
        return Problem(413, f"the body is larger than {self._max_body} bytes", code="too_large")

    def _account(self, scope: Scope, state: dict[str, object], status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "unmatched")
        method = scope["method"] if scope["method"] in _METHODS else "other"
        self._metrics.answered(route, method, status, seconds)
        if scope["path"] in UNLOGGED and status < 400:
            return
        line = {
            "request_id": state["request_id"],
            "method": method,
            "route": route,
            "status": status,
            "seconds": round(seconds, 6),
            "key": getattr(state.get("caller"), "name", None),
        }
        logs.requests.add(line | state.get("log", {}))  # type: ignore[operator]


_METHODS = frozenset({"GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH"})
