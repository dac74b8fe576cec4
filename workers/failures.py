"""What the owner of a job is told about an exception: the reason where it is theirs, nothing of ours otherwise."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError
from rq.timeouts import JobTimeoutException

from models.core.checkpoint import CheckpointError
from models.core.datasets import DatasetError, UnknownDatasetError
from models.core.inputs import InputError
from models.core.method import MethodError
from models.core.registry import UnknownMethodError
from models.core.store import NO_SPACE
from models.core.versions import UnknownVersionError, VersionExistsError
from workers.errors import JobSpecError, UnknownKindError
from workers.verdicts import problem, timed_out

_WITH_MESSAGE: tuple[tuple[tuple[type[Exception], ...], str, int], ...] = (
    ((InputError, MethodError, CheckpointError), "job-invalid", 422),
    ((VersionExistsError,), "version-exists", 409),
)
_WITH_NAME: tuple[tuple[tuple[type[Exception], ...], str, str], ...] = (
    ((UnknownDatasetError,), "dataset-unknown", "data set"),
    ((UnknownMethodError, UnknownVersionError), "model-unknown", "model"),
    ((UnknownKindError,), "kind-unknown", "kind of job"),
)
_WITH_TEXT: tuple[tuple[type[Exception], str, int, str], ...] = (
    (MemoryError, "out-of-memory", 507, "the job needs more memory than there is"),
)


def explain(error: Exception, timeout_s: float) -> dict[str, Any] | None:
    """The problem document of an exception with a known cause, or None for an internal error.

    Args:
        timeout_s: seconds that the job had.
    """
    if isinstance(error, JobTimeoutException):
        return timed_out(timeout_s)
    if isinstance(error, JobSpecError | DatasetError):
        return problem("job-invalid", 422, str(error), error.field)
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        field = "/parameters" + "".join(f"/{part}" for part in first["loc"])
        return problem("job-invalid", 422, first["msg"], field)
    if isinstance(error, OSError) and error.errno in NO_SPACE:
        return problem("store-full", 507, "no space is left for the job's files")
    return _by_table(error)


def _by_table(error: Exception) -> dict[str, Any] | None:
    for types, code, status in _WITH_MESSAGE:
        if isinstance(error, types):
            return problem(code, status, str(error))
    for types, code, what in _WITH_NAME:
        if isinstance(error, types):
            return problem(code, 404, f"there is no {what} {error.args[0]}")
    for kind, code, status, detail in _WITH_TEXT:
        if isinstance(error, kind):
            return problem(code, status, detail)
    return None
