"""``predict``: a request of an inference route, answered by a job: too large to wait for, or sent that way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from models.core.dataset import Kind
from models.core.registry import Registry, parse_model_id
from service.catalog import Served
from service.inputs import ItemLimits
from service.operations import OPERATIONS
from service.reading import Reader
from workers.errors import JobSpecError
from workers.kinds import check_dataset
from workers.records import JobSpec

if TYPE_CHECKING:
    from workers.context import WorkerContext


class PredictParameters(BaseModel):
    """The request as its route takes it, without the model."""

    model_config = ConfigDict(extra="forbid")
    request: dict[str, Any] = Field(description="the body of the route, without `model`")


def validate(registry: Registry, spec: JobSpec, dataset_kind: Kind | None = None) -> JobSpec:
    """Check the request's shape as its route would.

    Raises:
        UnknownMethodError: no such method.
        JobSpecError: the model is missing or has no such route, or a field of the request is wrong.
        pydantic.ValidationError: there is no request.
    """
    if spec.model is None:
        raise JobSpecError("/model", "predict needs a model")
    check_dataset(spec, "none")
    entry = registry[parse_model_id(spec.model)[0]]
    operation = OPERATIONS.get(entry.card.capability)
    if operation is None:
        raise JobSpecError("/model", f"{entry.slug} does not predict")
    parameters = PredictParameters.model_validate(spec.parameters)
    try:
        operation.request.model_validate({**parameters.request, "model": spec.model})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        pointer = "".join(f"/{part}" for part in first["loc"])
        raise JobSpecError(f"/parameters/request{pointer}", first["msg"]) from error
    return spec


def run(job: WorkerContext, spec: JobSpec) -> dict[str, Any]:
    """Answer the request as its route would, in batches that report progress."""
    import torch

    assert spec.model is not None
    version = job.versions.resolve(spec.model)
    checkpoint = job.versions.checkpoint(version)
    served = Served(version, checkpoint.config)
    card = version.entry.card
    operation = OPERATIONS[card.capability]
    body = operation.request.model_validate({**spec.parameters["request"], "model": spec.model})
    params = operation.params(body, served)
    job.progress(0.0, "read")
    reader = Reader(ItemLimits.of(job.settings), load=job.dataset, samples=lambda name: len(job.dataset(name)))
    inputs = operation.inputs(body, served, reader)
    method = version.entry.method.load(checkpoint, torch.device(job.device))
    outputs: list[Any] = []
    for start in range(0, len(inputs), card.max_batch):
        job.progress(start / len(inputs), "predict")
        with torch.inference_mode():
            outputs += list(method.predict(_stack(inputs[start : start + card.max_batch]), params))
    answer = orjson.dumps(operation.answer(body, served, outputs), option=orjson.OPT_SERIALIZE_NUMPY)
    result: dict[str, Any] = orjson.loads(answer)
    return result


def _stack(inputs: list[Any]) -> Any:
    """Pictures and vectors as one array, everything else as a list."""
    return np.stack(inputs) if isinstance(inputs[0], np.ndarray) else inputs
