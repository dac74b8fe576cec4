"""What several flows need."""

from __future__ import annotations

import uuid
from typing import Any, Protocol

from deepnight.client.calls import Call, Flow

PAGE = 1000


class Named(Protocol):
    """A data set, a job or a model."""

    @property
    def id(self) -> str:
        """The id in requests."""


def id_of(thing: str | Named) -> str:
    """The id of ``thing``, which may be one already."""
    return thing if isinstance(thing, str) else thing.id


def listed(path: str, **query: Any) -> Flow[list[dict[str, Any]]]:
    """All rows of a list, page by page."""
    rows: list[dict[str, Any]] = []
    while True:
        after = rows[-1]["id"] if rows else None
        response = yield Call("GET", path, {**query, "limit": PAGE, "after": after})
        page = response.json()
        rows += page["data"]
        if not page["has_more"]:
            return rows


def once(key: str | None) -> dict[str, str]:
    """The header that makes a repetition safe."""
    return {"Idempotency-Key": key or uuid.uuid4().hex}
