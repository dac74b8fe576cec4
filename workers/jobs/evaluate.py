"""``evaluate``: reproduce a method's proof from a checkpoint, or measure the checkpoint on a user's data set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from models.core.dataset import Kind
from models.core.registry import Registry, parse_model_id
from workers.errors import JobSpecError
from workers.kinds import check_input, named
from workers.records import JobSpec

if TYPE_CHECKING:
    from workers.context import WorkerContext


class EvaluateParameters(BaseModel):
    """``evaluate`` has no parameters of its own."""

    model_config = ConfigDict(extra="forbid")


def validate(registry: Registry, spec: JobSpec, dataset_kind: Kind | None = None) -> JobSpec:
    """Check model and data set.

    Raises:
        UnknownMethodError: no such method.
        JobSpecError: the model is missing, or the data set does not fit.
        pydantic.ValidationError: there are parameters.
    """
    if spec.model is None:
        raise JobSpecError("/model", "evaluate needs the model to evaluate")
    entry = registry[parse_model_id(spec.model)[0]]
    check_input(list(entry.card.trainable), entry.slug, dataset_kind)
    EvaluateParameters.model_validate(spec.parameters)
    return spec


def run(job: WorkerContext, spec: JobSpec) -> dict[str, Any]:
    """Evaluate the model and report its figures."""
    version = job.versions.resolve(named(spec.model, "/model"))
    dataset = job.dataset(spec.dataset) if spec.dataset is not None else None
    figures = version.entry.method.evaluate(job.versions.checkpoint(version), job, dataset)
    return {
        "object": "evaluate",
        "model": version.id,
        "dataset": spec.dataset,
        "figures": figures.model_dump(mode="json"),
        "curves": job.curves,
    }
