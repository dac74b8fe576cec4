"""Preferences that people state between two answers, kept in the blob store until a training reads them."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from models.core.inputs import InputError
from models.core.store import BlobStore

PREFIX = "comparisons"


class Comparison(BaseModel):
    """Which of two summaries of a text somebody prefers.

    ``shown_first`` and ``annotator`` let a training find a bias of position or of a person.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    id: str = ""
    input: str
    candidates: tuple[str, str]
    preferred: int = Field(ge=0, le=1, description="position in `candidates`")
    annotator: str | None = None
    confidence: int | None = Field(default=None, ge=1, le=9)
    model: str | None = Field(default=None, description="`slug@version` that wrote the candidates")
    shown_first: int | None = Field(default=None, ge=0, le=1, description="position in `candidates`")
    created_at: float = 0.0
    owner: str = ""


class RepeatedKeyError(ValueError):
    """The idempotency key was used before with another comparison."""


class FeedbackStore:
    """Comparisons, one blob each, so that several gateways write without talking to each other."""

    def __init__(self, store: BlobStore) -> None:
        self._store = store

    def add(self, comparison: Comparison, *, idempotency_key: str | None = None) -> tuple[Comparison, bool]:
        """Keep ``comparison`` with an id and a time of its own; it is durable when this returns.

        Returns:
            What is kept, and whether it is new: the same key with the same content is kept once.

        Raises:
            RepeatedKeyError: the same key came before with other content.
            StoreFullError: nothing was kept.
        """
        if idempotency_key is None:
            name = f"cmp_{time.time_ns():016x}{os.urandom(4).hex()}"
        else:
            name = "cmp_" + hashlib.sha256(f"{comparison.owner}\0{idempotency_key}".encode()).hexdigest()[:24]
            if self._store.exists(_key(comparison.owner, name)):
                found = Comparison.model_validate_json(self._store.get(_key(comparison.owner, name)))
                if _content(found) != _content(comparison):
                    raise RepeatedKeyError("this key was used before with another comparison")
                return found, False
        kept = comparison.model_copy(update={"id": name, "created_at": time.time()})
        self._store.put(_key(kept.owner, name), kept.model_dump_json().encode())
        return kept, True

    def export(self, owner: str | None) -> Iterator[bytes]:
        """Each comparison of ``owner`` (of everybody for None) as one line of JSON, without the line's end."""
        for key in self._store.keys(PREFIX if owner is None else f"{PREFIX}/{owner}"):
            yield self._store.get(key)

    def list(self, owner: str | None) -> list[Comparison]:
        """The comparisons of ``owner``, or of everybody for None."""
        return [Comparison.model_validate_json(line) for line in self.export(owner)]


def read_comparisons(path: Path) -> list[Comparison]:
    """The comparisons of a JSONL file, one a line, as they are exported.

    Raises:
        InputError: a line is not a comparison; names it.
    """
    with path.open("rb") as file:
        return list(_parse(file))


def _parse(lines: Iterable[bytes]) -> Iterator[Comparison]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            yield Comparison.model_validate_json(line)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = "/".join(str(part) for part in first["loc"]) or "line"
            raise InputError(f"line {number} is not a comparison: {where}: {first['msg']}") from None


def _key(owner: str, name: str) -> str:
    return f"{PREFIX}/{owner}/{name}.json"


def _content(comparison: Comparison) -> dict[str, object]:
    return comparison.model_dump(exclude={"id", "created_at"})
