"""A finished job's result, and pages of the list that its kind names as long."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from models.core.card import JobKind
from models.core.store import BlobStore
from service.problems import FieldError, Problem

DEFAULT_LIMIT = 100
MAX_LIMIT = 1000


def result_page(store: BlobStore, key: str, kind: JobKind | None, query: Mapping[str, str]) -> dict[str, Any]:
    """The result at ``key``, its long list filtered and cut as ``query`` says.

    Args:
        kind: what a method's card says of the kind; None for kinds whose results have no long list.

    Raises:
        Problem: 410 the result was deleted after its time, 422 a query parameter that is not valid.
    """
    paged = kind is not None and bool(kind.page)
    filters = kind.filters if kind is not None and paged else {}
    _refuse_unknown(query, {"offset", "limit", *filters} if paged else set())
    offset = _number(query, "offset", 0, 0, 1 << 53)
    limit = _number(query, "limit", DEFAULT_LIMIT, 1, MAX_LIMIT)
    try:
        result: dict[str, Any] = orjson.loads(store.get(key))
    except FileNotFoundError:
        raise Problem(410, "the result was deleted: results are kept for a limited time", code="gone") from None
    if kind is None or not paged:
        return result
    items = result.get(kind.page)
    if not isinstance(items, list):
        return result
    for name, field in filters.items():
        if name in query:
            items = [item for item in items if _text(item.get(field)) == query[name].lower()]
    return {**result, kind.page: items[offset : offset + limit], "has_more": offset + limit < len(items)}


def _refuse_unknown(query: Mapping[str, str], known: set[str]) -> None:
    unknown = [FieldError(name, "not a query parameter of this result") for name in query if name not in known]
    if unknown:
        raise Problem(422, "a query parameter is not known", errors=unknown[:20], code="invalid_query")


def _number(query: Mapping[str, str], name: str, default: int, low: int, high: int) -> int:
    text = query.get(name)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 17 and low <= int(text) <= high):
        errors = [FieldError(name, f"a whole number from {low} to {high}")]
        raise Problem(422, "a query parameter is not valid", errors=errors, code="invalid_query")
    return int(text)


def _text(value: Any) -> str:
    return str(value).lower()
