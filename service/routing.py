"""JSON bodies read strictly and fast: no NaN, no Infinity, the declared type, with a JSON pointer for each error."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any

import orjson
from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.types import ASGIApp, Receive, Scope, Send

from service.problems import FieldError, Problem, answer_exception, field_errors, invalid, malformed

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class JsonRequest(Request):
    """A request whose JSON is parsed by orjson, which refuses NaN, Infinity and invalid UTF-8."""

    async def json(self) -> Any:
        """The parsed body."""
        return orjson.loads(await self.body())


class JsonRoute(APIRoute):
    """A route that takes ``application/json`` bodies only.

    Where its function takes nothing but a body, the request, and what depends on the request alone (the caller, the
    services), it is called without FastAPI's solver, which costs more than the prediction of a small model. The
    declaration, and the OpenAPI document made from it, stay the same.
    """

    def get_route_handler(self) -> Handler:
        """The direct handler where there can be one, else FastAPI's behind the check of the media type."""
        return self.direct() or self._solved(super().get_route_handler())

    def direct(self) -> Handler | None:
        """Calls the route's function with what it takes, or None where that is more than a request gives."""
        dependant, body = self.dependant, self.body_field
        taken = (dependant.path_params, dependant.query_params, dependant.header_params, dependant.cookie_params)
        model = None if body is None else body.field_info.annotation
        if any(taken) or not (isinstance(model, type) and issubclass(model, BaseModel)) or "{" in self.path:
            return None
        given: dict[str, Callable[[Request], Any]] = {}
        for dependency in dependant.dependencies:
            if dependency.request_param_name is None or dependency.call is None or dependency.name is None:
                return None
            given[dependency.name] = dependency.call
        assert body is not None
        assert dependant.call is not None
        return _direct(dependant.call, body.name, model, dependant.request_param_name, given)

    def _solved(self, handle: Handler) -> Handler:
        takes_body = self.body_field is not None

        async def checked(request: Request) -> Response:
            parsed = JsonRequest(request.scope, request.receive)
            if takes_body:
                check_media_type(request)
                await parsed.body()  # here, where its failures are problems of ours; FastAPI makes each a plain 400
            return await handle(parsed)

        return checked


def _direct(
    call: Callable[..., Awaitable[Response]],
    body_name: str,
    model: type[BaseModel],
    request_name: str | None,
    given: dict[str, Callable[[Request], Any]],
) -> Handler:
    async def handle(request: Request) -> Response:
        check_media_type(request)
        arguments: dict[str, Any] = {} if request_name is None else {request_name: request}
        for name, dependency in given.items():
            value = dependency(request)
            arguments[name] = await value if isinstance(value, Coroutine) else value
        arguments[body_name] = parse_body(model, await request.body())
        return await call(**arguments)

    return handle


def check_media_type(request: Request) -> None:
    """Check that the body is declared as JSON, or not declared.

    Raises:
        Problem: 415.
    """
    declared = request.headers.get("content-type", "application/json")
    if declared == "application/json":
        return
    media_type = declared.partition(";")[0].strip().lower()
    if media_type != "application/json" and not media_type.endswith("+json"):
        raise Problem(415, f"expected application/json, got {media_type[:100]}", code="media_type")


def parse_body(model: type[BaseModel], raw: bytes) -> BaseModel:
    """The body as ``model``.

    Raises:
        Problem: 400 not JSON, 422 naming the fields that are wrong.
    """
    if not raw:
        raise invalid([FieldError("/", "Field required")])
    try:
        return model.model_validate(orjson.loads(raw))
    except orjson.JSONDecodeError as error:
        raise malformed(error.msg) from error
    except ValidationError as error:
        raise invalid(field_errors(error)) from error


class Shortcut:
    """Leads requests of direct routes to their handlers at once, and all others to ``app``.

    Exact paths need no search through the routers, and handlers that answer with whole responses need none of the
    layers that FastAPI lays around routes.
    """

    def __init__(self, app: ASGIApp, routers: Iterable[APIRouter]) -> None:
        self._app = app
        self._routes: dict[tuple[str, str], tuple[JsonRoute, Handler]] = {}
        for router in routers:
            for route in router.routes:
                if isinstance(route, JsonRoute) and (handler := route.direct()) is not None:
                    self._routes |= {(method, route.path): (route, handler) for method in route.methods or ()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        found = self._routes.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
        if found is None or scope.get("root_path"):
            await self._app(scope, receive, send)
            return
        scope["route"], handle = found
        request = Request(scope, receive, send)
        try:
            response = await handle(request)
        except Exception as error:
            response = answer_exception(error, request)
        await response(scope, receive, send)


def json_response(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A JSON answer; NumPy arrays inside ``content`` are written as they are."""
    raw = orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(raw, status, headers=headers, media_type="application/json")
