"""``train``: a method on a user's data set; the result is a new version of the method, served at once.

Artifacts: the files of the checkpoint, and ``curves.png`` with every metric of the training.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from models.core.checkpoint import CONFIG, FIGURES, WEIGHTS
from models.core.dataset import Kind
from models.core.registry import MethodEntry, Registry
from workers.errors import JobSpecError
from workers.kinds import check_dataset, check_input, named
from workers.records import JobSpec

if TYPE_CHECKING:
    from models.core.checkpoint import Checkpoint
    from workers.context import WorkerContext

FILES = {WEIGHTS: "application/octet-stream", CONFIG: "application/json", FIGURES: "application/json"}
VERSION_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"


class TrainParameters(BaseModel):
    """What ``train`` takes beside the fields of the method's own configuration."""

    model_config = ConfigDict(extra="allow")
    preset: str = "cpu"
    version: str | None = Field(
        default=None, pattern=VERSION_PATTERN, description="name of the new version; made from the job's id by default"
    )


def validate(registry: Registry, spec: JobSpec, dataset_kind: Kind | None = None) -> JobSpec:
    """Check preset, configuration and data set; the checked parameters hold the whole configuration.

    Raises:
        UnknownMethodError: no such method.
        JobSpecError: model or data set are missing or do not fit, or the preset or a field is unknown.
        pydantic.ValidationError: a value is out of range.
    """
    if spec.model is None:
        raise JobSpecError("/model", "train needs the method to train")
    if "@" in spec.model:
        raise JobSpecError("/model", "train makes a new version of a method: name the method without a version")
    entry = registry[spec.model]
    if not entry.card.trainable:
        raise JobSpecError("/model", f"{entry.slug} has nothing to train")
    check_dataset(spec, "required")
    check_input(list(entry.card.trainable), entry.slug, dataset_kind)
    chosen, config = _parse(entry, spec.parameters)
    parameters = {"preset": chosen.preset, "version": chosen.version, **config.model_dump(mode="json")}
    return spec.model_copy(update={"parameters": parameters})


def run(job: WorkerContext, spec: JobSpec) -> dict[str, Any]:
    """Train, publish, and report the new version."""
    model, dataset = named(spec.model, "/model"), named(spec.dataset, "/dataset")
    entry = job.registry[model]
    chosen, config = _parse(entry, spec.parameters)
    checkpoint = entry.method.train(job.dataset(dataset), config, job)
    _leave_artifacts(job, checkpoint)
    published = job.publish(entry.slug, checkpoint, chosen.version)
    figures = checkpoint.figures
    return {
        "object": "train",
        "model": published,
        "dataset": dataset,
        "seed": job.seed,
        "config": config.model_dump(mode="json"),
        "figures": figures.model_dump(mode="json") if figures is not None else None,
        "curves": job.curves,
    }


def _leave_artifacts(job: WorkerContext, checkpoint: Checkpoint) -> None:
    from models.core.curves import draw_curves

    for name, media_type in FILES.items():
        if (checkpoint.folder / name).exists():
            shutil.copyfile(checkpoint.folder / name, job.artifact(name, media_type))
    draw_curves(job.curves, job.artifact("curves.png", "image/png"))


def _parse(entry: MethodEntry, parameters: dict[str, Any]) -> tuple[TrainParameters, BaseModel]:
    chosen = TrainParameters.model_validate(parameters)
    presets = entry.presets
    if chosen.preset not in presets:
        raise JobSpecError("/parameters/preset", f"{entry.slug} has the presets {', '.join(sorted(presets))}")
    fields = dict(chosen.model_extra or {})
    for name in fields:
        if name not in entry.config.model_fields:
            raise JobSpecError(f"/parameters/{name}", f"the configuration of {entry.slug} has no such field")
    return chosen, entry.config.model_validate({**presets[chosen.preset].model_dump(), **fields})
