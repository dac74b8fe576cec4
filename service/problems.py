"""Errors as RFC 9457 problem documents, with OpenAI's ``error`` object on the routes that OpenAI clients call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import orjson
import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from pydantic_core import ErrorDetails
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from models.core.store import StoreUnavailableError

log = structlog.get_logger("deepnight.gateway")

CLIENT_CLOSED_REQUEST = 499  # nginx's; nobody reads it but the logs and metrics
STORE_RETRY_S = 5
OPENAI_PREFIXES = ("/v1/embeddings", "/v1/images", "/v1/models")
OPENAI_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


@dataclass(frozen=True)
class FieldError:
    """One offending field: a JSON pointer into the body (or a header's or query parameter's name) and why."""

    field: str
    detail: str


class Problem(Exception):  # noqa: N818 - RFC 9457's own name
    """An answer with an error status.

    Args:
        status: HTTP status.
        detail: what went wrong, for the person who sent the request.
        errors: the offending fields.
        headers: additional headers such as ``Retry-After``.
        code: short machine-readable name of the problem.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        errors: Sequence[FieldError] = (),
        headers: Mapping[str, str] | None = None,
        code: str = "",
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.errors = tuple(errors)
        self.headers = dict(headers or {})
        self.code = code

    def document(self, request_id: str) -> dict[str, Any]:
        """The problem document without the parts that depend on the route."""
        document: dict[str, Any] = {
            "type": f"urn:deepnight:problem:{self.code}" if self.code else "about:blank",
            "title": _phrase(self.status),
            "status": self.status,
            "detail": self.detail,
            "instance": request_id,
        }
        if self.errors:
            document["errors"] = [{"field": error.field, "detail": error.detail} for error in self.errors]
        return document


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Client Closed Request"


def unavailable(detail: str, retry_after: float, code: str = "unavailable") -> Problem:
    """503 with ``Retry-After`` in whole seconds, at least one."""
    return Problem(503, detail, headers={"Retry-After": str(max(1, round(retry_after)))}, code=code)


def field_errors(error: ValidationError, prefix: str = "") -> list[FieldError]:
    """Pydantic's errors as JSON pointers below ``prefix``."""
    return [_field_error(item, prefix) for item in error.errors(include_url=False)]


def _field_error(item: ErrorDetails, prefix: str) -> FieldError:
    pointer = "".join(f"/{part}" for part in item["loc"])
    return FieldError(f"{prefix}{pointer}" or "/", item["msg"])


def problem_response(problem: Problem, request: Request) -> Response:
    """Render ``problem`` in the dialect of the route."""
    document = problem.document(getattr(request.state, "request_id", ""))
    path = request.url.path
    if path.startswith("/v2"):
        document["error"] = problem.detail
    elif path.startswith(OPENAI_PREFIXES):
        document["error"] = openai_error(problem)
    return Response(
        orjson.dumps(document), problem.status, headers=problem.headers, media_type="application/problem+json"
    )


def openai_error(problem: Problem) -> dict[str, Any]:
    """OpenAI's ``error`` object."""
    param = problem.errors[0].field.strip("/").replace("/", ".") if problem.errors else None
    kind = OPENAI_TYPES.get(problem.status, "invalid_request_error" if problem.status < 500 else "server_error")
    return {
        "message": "; ".join(f"{e.field}: {e.detail}" for e in problem.errors) or problem.detail,
        "type": kind,
        "param": param,
        "code": problem.code or None,
    }


def install(app: FastAPI) -> None:
    """Answer every exception of ``app`` with a problem document."""

    async def on_exception(request: Request, error: Exception) -> Response:
        return answer_exception(error, request)

    for kind in (Problem, RequestValidationError, HTTPException, ClientDisconnect, StoreUnavailableError, Exception):
        app.add_exception_handler(kind, on_exception)


def answer_exception(error: Exception, request: Request) -> Response:
    """The problem document for whatever a route raised; what no route means to raise is logged."""
    match error:
        case Problem():
            problem = error
        case RequestValidationError():
            problem = _from_validation(error)
        case HTTPException():
            problem = Problem(error.status_code, str(error.detail), headers=dict(error.headers or {}))
        case StoreUnavailableError():
            log.warning("the store does not answer", path=request.url.path, error=str(error))
            problem = unavailable("the blob store cannot be reached", STORE_RETRY_S, "store_unavailable")
        case ClientDisconnect():
            problem = Problem(CLIENT_CLOSED_REQUEST, "the client closed the connection")
        case _:
            request_id = getattr(request.state, "request_id", "")
            log.error("unhandled exception", path=request.url.path, request_id=request_id, exc_info=error)
            problem = Problem(500, "an internal error; the request id names it in the logs")
    return problem_response(problem, request)


def invalid(errors: Sequence[FieldError]) -> Problem:
    """422 for a request that is not what the route takes."""
    return Problem(422, "the request is not valid", errors=errors, code="invalid")


def malformed(reason: str) -> Problem:
    """400 for a body that is not JSON."""
    return Problem(400, f"the body is not valid JSON: {reason}", code="malformed_json")


def _from_validation(error: RequestValidationError) -> Problem:
    errors = []
    for item in error.errors():
        where, *rest = item["loc"]
        if item["type"] == "json_invalid":
            return malformed(item.get("ctx", {}).get("error", item["msg"]))
        pointer = "".join(f"/{part}" for part in rest) if where == "body" else ".".join(str(part) for part in rest)
        errors.append(FieldError(pointer or "/", item["msg"]))
    return invalid(errors)
