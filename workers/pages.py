"""The long list of a result, stored so that a page reads its own rows only.

``result-rows.jsonl`` beside the result holds a line for each item, ``result-rows.npz`` where each line begins and, for
each filter of the kind, every item's value as a number.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from models.core.card import JobKind
from models.core.run import dump_state, load_state
from models.core.store import BlobStore

ROWS, INDEX = "result-rows.jsonl", "result-rows.npz"


@dataclass(frozen=True)
class Pages:
    """A long list, ready to be stored: its lines and their index."""

    rows: bytes
    index: bytes


def split_pages(result: Mapping[str, Any], kind: JobKind | None) -> tuple[dict[str, Any], Pages | None]:
    """The result with null for the list that its kind pages, and that list; None where there is none.

    Raises:
        ValueError, TypeError: an item is not JSON.
    """
    items = None if kind is None else result.get(kind.page)
    if kind is None or not isinstance(items, list):
        return dict(result), None
    lines = [json.dumps(item, allow_nan=False).encode() + b"\n" for item in items]
    arrays: dict[str, npt.NDArray[Any]] = {"offsets": np.array([0, *accumulate(map(len, lines))], dtype=np.int64)}
    values: dict[str, list[str]] = {}
    for name, field in kind.filters.items():
        texts = [_text(item.get(field)) for item in items]
        values[name] = list(dict.fromkeys(texts))
        codes = {text: code for code, text in enumerate(values[name])}
        arrays[f"codes/{name}"] = np.array([codes[text] for text in texts], dtype=np.int32)
    index = io.BytesIO()
    dump_state(index, arrays, {"values": values})
    return {**result, kind.page: None}, Pages(b"".join(lines), index.getvalue())


def read_page(
    store: BlobStore, folder: str, wanted: Mapping[str, str], offset: int, limit: int
) -> tuple[list[Any], bool]:
    """Up to ``limit`` items after the first ``offset`` of those whose filters have the ``wanted`` values, and whether
    there are more.

    Raises:
        FileNotFoundError: the list was deleted.
    """
    arrays, facts = load_state(io.BytesIO(store.get(f"{folder}/{INDEX}")))
    offsets = arrays["offsets"]
    kept = np.ones(len(offsets) - 1, dtype=bool)
    for name, value in wanted.items():
        values = facts["values"][name]
        text = _text(value)
        kept &= arrays[f"codes/{name}"] == (values.index(text) if text in values else -1)
    chosen = np.flatnonzero(kept)
    page = chosen[offset : offset + limit]
    more = offset + limit < len(chosen)
    if not len(page):
        return [], more
    begins, ends = offsets[page].tolist(), offsets[page + 1].tolist()
    with store.open(f"{folder}/{ROWS}") as file:
        file.seek(begins[0])
        span = file.read(ends[-1] - begins[0])
    return [orjson.loads(span[b - begins[0] : e - begins[0]]) for b, e in zip(begins, ends, strict=True)], more


def _text(value: Any) -> str:
    return str(value).lower()
