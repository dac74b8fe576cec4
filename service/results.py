"""A finished job's result, and pages of the list that its kind names as long."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from models.core.card import JobKind
from models.core.store import BlobStore
from service.problems import FieldError, Problem
from workers.pages import read_page

DEFAULT_LIMIT = 100
MAX_LIMIT = 1000


def result_page(store: BlobStore, key: str, kind: JobKind | None, query: Mapping[str, str]) -> dict[str, Any]:
    """The result at ``key``, its long list filtered and cut as ``query`` says.

    Args:
        kind: what a method's card says of the kind; None for kinds whose results have no long list.

    Raises:
        Problem: 410 the result was deleted after its time, 422 a query parameter that is not valid.
    """
    list_name = kind.page if kind is not None else ""
    filters = kind.filters if kind is not None and list_name else {}
    _refuse_unknown(query, {"offset", "limit", *filters} if list_name else set())
    offset = _number(query, "offset", 0, 0, 1 << 53)
    limit = _number(query, "limit", DEFAULT_LIMIT, 1, MAX_LIMIT)
    try:
        result: dict[str, Any] = orjson.loads(store.get(key))
        if list_name not in result or result[list_name] is not None:
            return result
        wanted = {name: query[name] for name in filters if name in query}
        rows, has_more = read_page(store, key.rpartition("/")[0], wanted, offset, limit)
    except FileNotFoundError:
        raise Problem(410, "the result was deleted: results are kept for a limited time", code="gone") from None
    return {**result, list_name: rows, "has_more": has_more}


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
