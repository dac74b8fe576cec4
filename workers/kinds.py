"""The kinds of job: what each takes, checked before it is queued. Never imports torch."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from pydantic import BaseModel

from models.core.card import JobKind
from models.core.dataset import Kind
from models.core.jobs import JobContext
from models.core.registry import MethodEntry, Registry, parse_model_id
from models.core.versions import VersionExistsError
from workers.errors import JobSpecError, UnknownKindError
from workers.records import JobSpec

BUILTIN: Mapping[str, str] = {
    "train": "workers.jobs.train",
    "evaluate": "workers.jobs.evaluate",
    "predict": "workers.jobs.predict",
}
_INPUT_OF: Mapping[Kind, str] = {"images": "image", "vectors": "vector", "text": "text", "pairs": "pairs"}


def validate(registry: Registry, spec: JobSpec, dataset_kind: Kind | None = None) -> JobSpec:
    """Check a job and fill in the defaults of its parameters.

    Args:
        dataset_kind: what the job's data set holds, where it is known.

    Raises:
        UnknownKindError: no such kind.
        UnknownMethodError: no such method.
        JobSpecError: a field is missing or does not fit; names it.
        pydantic.ValidationError: the parameters are not valid; locations are relative to ``/parameters``.
    """
    if spec.kind in BUILTIN:
        checked: JobSpec = _module(spec.kind).validate(registry, spec, dataset_kind)
        return checked
    entry, kind = _declared(registry, spec.kind)
    if not kind.any_model and spec.model is not None and parse_model_id(spec.model)[0] != entry.slug:
        raise JobSpecError("/model", f"{spec.kind} is offered by {entry.slug}")
    check_dataset(spec, kind.dataset)
    check_input(kind.inputs, spec.kind, dataset_kind)
    return spec.model_copy(update={"parameters": parse_parameters(entry, kind, spec).model_dump(mode="json")})


def execute(registry: Registry, job: JobContext, spec: JobSpec) -> dict[str, Any]:
    """Run a checked job in this process and return its result.

    Raises:
        JobSpecError: the version that the job is to publish has a name that is taken.
    """
    slug = _publisher(registry, spec)
    if slug is not None:
        try:
            job.check_free(slug, spec.parameters.get("version"))
        except VersionExistsError as error:
            raise JobSpecError("/parameters/version", str(error)) from error
    if spec.kind in BUILTIN:
        result: dict[str, Any] = _module(spec.kind).run(job, spec)
        return result
    entry, kind = _declared(registry, spec.kind)
    found: dict[str, Any] = entry.job_function(kind)(job, parse_parameters(entry, kind, spec))
    return found


def named(value: str | None, field: str) -> str:
    """A field of the request that must be there.

    Raises:
        JobSpecError: it is not.
    """
    if value is None:
        raise JobSpecError(field, "is missing")
    return value


def check_dataset(spec: JobSpec, need: str) -> None:
    """Check that a data set is named where one is needed, and only there.

    Raises:
        JobSpecError: it is missing, or the kind takes none.
    """
    if need == "required" and spec.dataset is None:
        raise JobSpecError("/dataset", f"{spec.kind} needs a data set")
    if need == "none" and spec.dataset is not None:
        raise JobSpecError("/dataset", f"{spec.kind} takes no data set")


def check_input(accepted: list[Any], what: str, dataset_kind: Kind | None) -> None:
    """Check that what a data set holds is among ``accepted`` (anything when that is empty).

    Raises:
        JobSpecError: it is not.
    """
    if dataset_kind is not None and accepted and _INPUT_OF[dataset_kind] not in accepted:
        raise JobSpecError("/dataset", f"{what} takes {' or '.join(accepted)} data, the data set holds {dataset_kind}")


def parse_parameters(entry: MethodEntry, kind: JobKind, spec: JobSpec) -> BaseModel:
    """The parameters as the type that the method's card names."""
    return entry.model(kind.parameters).model_validate(spec.parameters)


def _publisher(registry: Registry, spec: JobSpec) -> str | None:
    """The method that a job of this kind publishes a version of."""
    if spec.kind == "train":
        return parse_model_id(named(spec.model, "/model"))[0]
    if spec.kind in BUILTIN:
        return None
    entry, kind = _declared(registry, spec.kind)
    return entry.slug if kind.publishes else None


def _declared(registry: Registry, kind: str) -> tuple[MethodEntry, JobKind]:
    try:
        return registry.job_kinds()[kind]
    except KeyError:
        raise UnknownKindError(kind) from None


def _module(kind: str) -> ModuleType:
    return importlib.import_module(BUILTIN[kind])
