"""JSON bodies read strictly and fast: no NaN, no Infinity, the declared type, with a JSON pointer for each error."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import orjson
from fastapi import Request, Response
from fastapi.routing import APIRoute

from service.problems import Problem


class JsonRequest(Request):
    """A request whose JSON is parsed by orjson, which refuses NaN, Infinity and invalid UTF-8."""

    async def json(self) -> Any:
        """The parsed body."""
        return orjson.loads(await self.body())


class JsonRoute(APIRoute):
    """A route that takes ``application/json`` bodies only."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's handler behind the check of the media type."""
        handle = super().get_route_handler()
        takes_body = self.body_field is not None

        async def checked(request: Request) -> Response:
            if takes_body:
                media_type = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
                if media_type != "application/json" and not media_type.endswith("+json"):
                    raise Problem(415, f"expected application/json, got {media_type[:100]}", code="media_type")
            parsed = JsonRequest(request.scope, request.receive)
            if takes_body:
                await parsed.body()  # here, where its failures are problems of ours; FastAPI makes each a plain 400
            return await handle(parsed)

        return checked


def json_response(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A JSON answer; NumPy arrays inside ``content`` are written as they are."""
    raw = orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(raw, status, headers=headers, media_type="application/json")
