"""Generated pictures: which class and which seeds a request means, and the pictures as PNG."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel
from pydantic.json_schema import DEFAULT_REF_TEMPLATE

from models.core.outputs import Draw, Generated
from models.core.registry import MethodEntry
from service.catalog import Served
from service.classnames import find_class
from service.operation import Operation, costs_too_much, parse_parameters
from service.pictures import encode_png
from service.problems import FieldError, Problem
from service.reading import Reader
from service.schemas.images import MAX_SEED, DrawParameters, GenerationRequest

RANDOM_SEEDS = 1 << 53  # JSON clients that read every number as a double keep these


class Generate(Operation[GenerationRequest]):
    """POST /v1/images/generations."""

    capability = "generate"
    request = GenerationRequest
    field = ""
    heavy_answer = True

    def params(self, body: GenerationRequest, served: Served) -> BaseModel:
        """The method's parameters, after class, seed and size were checked."""
        chosen_class(body, draw_parameters(body), served)
        native = size_of(served)
        if body.size not in (None, "auto", native):
            detail = f"`{served.id}` draws pictures of {native}, in no other size"
            raise Problem(422, detail, errors=[FieldError("/size", detail)], code="unsupported_size")
        return super().params(body, served)

    def parameters(self, body: GenerationRequest, served: Served) -> dict[str, Any]:
        """Those of the method itself: without those of every method, unless it has one of that name."""
        own = served.version.entry.params.model_fields
        shared = DrawParameters.model_fields.keys() - own.keys()
        return {name: value for name, value in body.parameters.items() if name not in shared}

    @staticmethod
    def parameters_schema(entry: MethodEntry, reference: str = DEFAULT_REF_TEMPLATE) -> dict[str, Any]:
        """The method's own parameters and those of every method of generation."""
        schema = entry.params.model_json_schema(ref_template=reference)
        return schema | {"properties": DrawParameters.model_json_schema()["properties"] | schema.get("properties", {})}

    def small(self, body: GenerationRequest) -> bool:
        """Always: there is a class to find and seeds to count."""
        return True

    def too_large(self, body: GenerationRequest, served: Served, params: BaseModel, reader: Reader) -> bool:
        """More forward passes than the method's card answers at once."""
        return costs_too_much(served.version.entry, body.n, params)

    def inputs(self, body: GenerationRequest, served: Served, reader: Reader) -> list[Draw]:
        """One draw a picture, with consecutive seeds."""
        drawn = draw_parameters(body)
        label = chosen_class(body, drawn, served)
        first = secrets.randbelow(RANDOM_SEEDS) if drawn.seed is None else drawn.seed
        seeds = [(first + i) % (MAX_SEED + 1) for i in range(body.n)]
        count = 0 if drawn.unconditional else len(served.config.class_names)
        return [Draw(class_of_seed(seed, count) if label is None else label, seed) for seed in seeds]

    def answer(self, body: GenerationRequest, served: Served, outputs: Sequence[Generated]) -> dict[str, Any]:
        """OpenAI's list of pictures."""
        return {
            "created": int(time.time()),
            "model": served.id,
            "size": size_of(served),
            "output_format": "png",
            "data": [picture(output, served) for output in outputs],
            "usage": usage(len(outputs)),
        }


def draw_parameters(body: GenerationRequest) -> DrawParameters:
    """Class and seed as sent.

    Raises:
        Problem: 422 naming the parameter that is wrong.
    """
    if isinstance(body.parameters.get("class_label"), bool | float | list | dict):
        detail = "expected the index or the name of a class, or null"
        errors = [FieldError("/parameters/class_label", detail)]
        raise Problem(422, detail, errors=errors, code="invalid_parameters")
    return parse_parameters(DrawParameters, body.parameters)


def chosen_class(body: GenerationRequest, drawn: DrawParameters, served: Served) -> int | None:
    """Position of the class that the request names, by ``prompt`` or ``class_label``; None where it names none.

    Raises:
        Problem: 422 for a class that the model does not have, or two different ones.
    """
    names = served.config.class_names
    found = [
        _position(given, names, field)
        for given, field in ((body.prompt or None, "/prompt"), (drawn.class_label, "/parameters/class_label"))
        if given is not None
    ]
    if len(set(found)) > 1:
        detail = f"`prompt` names {names[found[0]]}, `class_label` {names[found[1]]}"
        errors = [FieldError("/parameters/class_label", detail)]
        raise Problem(422, detail, errors=errors, code="invalid_parameters")
    if found and drawn.unconditional and "unconditional" not in served.version.entry.params.model_fields:
        detail = "a class is named, too"
        errors = [FieldError("/parameters/unconditional", detail)]
        raise Problem(422, detail, errors=errors, code="invalid_parameters")
    return found[0] if found else None


def _position(given: int | str, names: list[str], field: str) -> int:
    position = (given if 0 <= given < len(names) else None) if isinstance(given, int) else find_class(given, names)
    if position is not None:
        return position
    detail = f"names no class of this model; it has {', '.join(f'{i} {name}' for i, name in enumerate(names))}"
    if not names:
        detail = "this model has no classes"
    raise Problem(422, f"{field[1:]}: {detail}", errors=[FieldError(field, detail)], code="unknown_class")


def class_of_seed(seed: int, classes: int) -> int | None:
    """The class of a picture whose request names none: the seed alone decides, so that it alone repeats the picture."""
    return int(np.random.default_rng(seed).integers(classes)) if classes else None


def size_of(served: Served) -> str:
    """``WIDTHxHEIGHT`` of the model's pictures."""
    return f"{served.config.outputs['width']}x{served.config.outputs['height']}"


def picture(output: Generated, served: Served) -> dict[str, Any]:
    """One picture of the answer: PNG in base64, its seed, its class and the method's facts."""
    names = served.config.class_names
    label = None if output.class_index is None or not names else names[output.class_index]
    return {**output.details, "b64_json": encode_png(output.image), "seed": output.seed, "class_label": label}


def usage(pictures: int) -> dict[str, Any]:
    """Pictures counted where OpenAI counts tokens."""
    details = {"image_tokens": 0, "text_tokens": 0}
    return {
        "input_tokens": 0,
        "input_tokens_details": details,
        "output_tokens": pictures,
        "total_tokens": pictures,
    }
