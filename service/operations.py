"""The operations of the inference routes, by capability."""

from __future__ import annotations

import base64
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel

from models.core.outputs import Distance
from service.catalog import Served
from service.generating import Generate
from service.operation import Operation
from service.problems import FieldError, Problem
from service.reading import Reader
from service.schemas.inference import ClassificationRequest, DistanceRequest, EmbeddingRequest
from service.sides import count_pairs, read_sides
from service.summarising import Summarise


class Embed(Operation[EmbeddingRequest]):
    """POST /v1/embeddings."""

    capability = "embed"
    request = EmbeddingRequest

    def top_level(self, body: EmbeddingRequest) -> Collection[str]:
        """OpenAI's ``dimensions``."""
        return () if body.dimensions is None else ("dimensions",)

    def parameters(self, body: EmbeddingRequest, served: Served) -> dict[str, Any]:
        """With OpenAI's top-level ``dimensions`` as the method's parameter of that name, where it has one."""
        if body.dimensions is None:
            return body.parameters
        if "dimensions" in served.version.entry.params.model_fields:
            return {**body.parameters, "dimensions": body.dimensions}
        native = served.config.outputs.get("dimensions")
        if body.dimensions == native:
            return body.parameters
        detail = f"`{served.id}` gives {native} dimensions and does not shorten them"
        raise Problem(400, detail, errors=[FieldError("/dimensions", detail)], code="unsupported_dimensions")

    def small(self, body: EmbeddingRequest) -> bool:
        """One short string, or a few."""
        return _few_short_strings(body.input)

    def inputs(self, body: EmbeddingRequest, served: Served, reader: Reader) -> list[Any]:
        """Pictures, vectors or texts."""
        return reader.items(body.input, served.config.input)

    def answer(self, body: EmbeddingRequest, served: Served, outputs: Sequence[Any]) -> dict[str, Any]:
        """OpenAI's list of embeddings."""
        embeddings = np.ascontiguousarray(outputs, dtype="<f4")
        rows: list[Any] = list(embeddings)
        if body.encoding_format == "base64":
            rows = [base64.b64encode(row.data).decode("ascii") for row in embeddings]
        return {
            "object": "list",
            "data": [{"object": "embedding", "index": i, "embedding": row} for i, row in enumerate(rows)],
            "model": served.id,
            "usage": {"prompt_tokens": len(rows), "total_tokens": len(rows)},
        }


class Classify(Operation[ClassificationRequest]):
    """POST /v1/classifications."""

    capability = "classify"
    request = ClassificationRequest

    def small(self, body: ClassificationRequest) -> bool:
        """One short string, or a few."""
        return _few_short_strings(body.input)

    def inputs(self, body: ClassificationRequest, served: Served, reader: Reader) -> list[Any]:
        """Pictures, vectors or texts."""
        return reader.items(body.input, served.config.input)

    def answer(self, body: ClassificationRequest, served: Served, outputs: Sequence[Any]) -> dict[str, Any]:
        """The likeliest classes of each input."""
        probabilities = np.asarray(outputs)
        order = np.argsort(-probabilities, axis=1, kind="stable")[:, : body.top_k]
        names = served.config.class_names
        data = [
            {"index": i, "labels": [{"label": names[c], "score": float(row[c])} for c in ranked]}
            for i, (row, ranked) in enumerate(zip(probabilities, order, strict=True))
        ]
        return {"object": "list", "data": data, "model": served.id}


class Compare(Operation[DistanceRequest]):
    """POST /v1/distances."""

    capability = "distance"
    request = DistanceRequest
    field = ""

    def too_large(self, body: DistanceRequest, served: Served, params: BaseModel, reader: Reader) -> bool:
        """More pairs of points than the method's card answers at once."""
        return count_pairs(body, reader) > served.version.entry.card.inline_pairs

    def inputs(self, body: DistanceRequest, served: Served, reader: Reader) -> list[Any]:
        """The one pair of sides."""
        return [read_sides(body, reader)]

    def answer(self, body: DistanceRequest, served: Served, outputs: Sequence[Any]) -> dict[str, Any]:
        """The distance, its facts, and the coupling where it was asked for."""
        distance: Distance = outputs[0]
        answer = {
            "object": "distance",
            "model": served.id,
            "distance": distance.distance,
            "details": distance.details,
        }
        if distance.coupling is not None:
            answer["coupling"] = dict(zip(("rows", "columns", "mass"), distance.coupling, strict=True))
        return answer


SHORT_STRING = 32_768


def _few_short_strings(value: Any) -> bool:
    items = value if isinstance(value, list) else [value]
    return len(items) <= 4 and all(isinstance(item, str) and len(item) <= SHORT_STRING for item in items)


OPERATIONS: dict[str, Operation[Any]] = {
    op.capability: op for op in (Embed(), Classify(), Compare(), Generate(), Summarise())
}
