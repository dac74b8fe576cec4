"""What an inference route does with its body: the parameters, the inputs, and the answer made of the outputs.

The gateway answers with these at once; a queued job answers the same request with the same functions.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic.json_schema import DEFAULT_REF_TEMPLATE

from models.core.card import Capability
from models.core.registry import MethodEntry
from service.catalog import Served
from service.problems import FieldError, Problem, field_errors
from service.reading import Reader
from service.schemas.images import GenerationRequest
from service.schemas.inference import ClassificationRequest, DistanceRequest, EmbeddingRequest
from service.schemas.summaries import SummaryRequest

ParametersT = TypeVar("ParametersT", bound=BaseModel)
Body = TypeVar("Body", EmbeddingRequest, ClassificationRequest, DistanceRequest, GenerationRequest, SummaryRequest)


class Operation(ABC, Generic[Body]):
    """One capability's way from a body to inputs, and from outputs to the answer."""

    capability: ClassVar[Capability]
    request: type[Body]
    field: ClassVar[str] = "/input"
    heavy_answer: ClassVar[bool] = False  # whether making the answer is worth a thread

    def params(self, body: Body, served: Served) -> BaseModel:
        """The request's ``parameters`` as the method's own type.

        Raises:
            Problem: 422 naming the parameters that are wrong.
        """
        return self.method_params(self.parameters(body, served), served, self.top_level(body))

    @staticmethod
    def method_params(parameters: dict[str, Any], served: Served, top_level: Collection[str] = ()) -> BaseModel:
        """``parameters`` as the method's own type.

        Raises:
            Problem: 422 naming the parameters that are wrong.
        """
        entry = served.version.entry
        return parse_parameters(entry.params, parameters, top_level) if parameters else entry.default_params

    def top_level(self, body: Body) -> Collection[str]:
        """Parameters of the method that were sent beside ``parameters``."""
        return ()

    def parameters(self, body: Body, served: Served) -> dict[str, Any]:
        """The method's parameters as sent."""
        return body.parameters

    @staticmethod
    def parameters_schema(entry: MethodEntry, reference: str = DEFAULT_REF_TEMPLATE) -> dict[str, Any]:
        """JSON schema of ``parameters`` for one method."""
        return entry.params.model_json_schema(ref_template=reference)

    def small(self, body: Body) -> bool:
        """Whether reading the inputs is too little work to be worth a thread."""
        return False

    def too_large(self, body: Body, served: Served, params: BaseModel, reader: Reader) -> bool:
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


def parse_parameters(
    model: type[ParametersT], parameters: dict[str, Any], top_level: Collection[str] = ()
) -> ParametersT:
    """``parameters`` as ``model``.

    Raises:
        Problem: 422 naming the parameters that are wrong, where they were sent.
    """
    try:
        return model.model_validate(parameters)
    except ValidationError as error:
        found = field_errors(error, "/parameters")
        errors = [FieldError(placed(wrong.field, top_level), wrong.detail) for wrong in found]
        raise Problem(422, "a parameter is not valid", errors=errors, code="invalid_parameters") from error


def placed(pointer: str, top_level: Collection[str]) -> str:
    """The place of ``/parameters/NAME`` in the body: ``/NAME`` for what was sent beside ``parameters``."""
    name = pointer.removeprefix("/parameters/")
    return f"/{name}" if name in top_level else pointer


def costs_too_much(entry: MethodEntry, inputs: int, params: BaseModel) -> bool:
    """Whether the method counts more forward passes than its card answers at once."""
    passes = getattr(entry.schema, "passes", None)
    return bool(entry.card.inline_passes and passes and passes(inputs, params) > entry.card.inline_passes)
