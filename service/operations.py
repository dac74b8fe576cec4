"""What each inference route does with its body: the parameters, the inputs, and the answer made of the outputs.

The gateway answers with these at once; a queued job answers the same request with the same functions.
"""

from __future__ import annotations

import base64
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
from pydantic import BaseModel, ValidationError

from models.core.card import Capability
from models.core.outputs import Distance
from service.catalog import Served
from service.problems import FieldError, Problem, field_errors
from service.reading import Reader
from service.schemas.inference import ClassificationRequest, DistanceRequest, EmbeddingRequest
from service.sides import count_pairs, read_sides

Body = TypeVar("Body", EmbeddingRequest, ClassificationRequest, DistanceRequest)


class Operation(ABC, Generic[Body]):
    """One capability's way from a body to inputs, and from outputs to the answer."""

    capability: ClassVar[Capability]
    request: type[Body]
    field: ClassVar[str] = "/input"

    def params(self, body: Body, served: Served) -> BaseModel:
        """The request's ``parameters`` as the method's own type.

        Raises:
            Problem: 422 naming the parameters that are wrong.
        """
        return self.method_params(self.parameters(body, served), served)

    @staticmethod
    def method_params(parameters: dict[str, Any], served: Served) -> BaseModel:
        """``parameters`` as the method's own type.

        Raises:
            Problem: 422 naming the parameters that are wrong.
        """
        entry = served.version.entry
        if not parameters:
            return entry.default_params
        try:
            return entry.params.model_validate(parameters)
        except ValidationError as error:
            errors = field_errors(error, "/parameters")
            raise Problem(422, "a parameter is not valid", errors=errors, code="invalid_parameters") from error

    def parameters(self, body: Body, served: Served) -> dict[str, Any]:
        """The method's parameters as sent."""
        return body.parameters

    def small(self, body: Body) -> bool:
        """Whether reading the inputs is too little work to be worth a thread."""
        return False

    def too_large(self, body: Body, served: Served, reader: Reader) -> bool:
        """Whether the request is answered by a job."""
        return False

    @abstractmethod
    def inputs(self, body: Body, served: Served, reader: Reader) -> list[Any]:
        """The inputs of ``Method.predict``.

        Raises:
            Problem: naming what does not fit.
        """

    @abstractmethod
    def answer(self, body: Body, served: Served, outputs: Sequence[Any]) -> dict[str, Any]:
        """The answer's body; NumPy arrays are fine."""


class Embed(Operation[EmbeddingRequest]):
    """POST /v1/embeddings."""

    capability = "embed"
    request = EmbeddingRequest

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

    def too_large(self, body: DistanceRequest, served: Served, reader: Reader) -> bool:
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


OPERATIONS: dict[str, Operation[Any]] = {op.capability: op for op in (Embed(), Classify(), Compare())}
