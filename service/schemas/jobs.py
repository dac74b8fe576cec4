"""Bodies of the job routes."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from workers.records import JobRecord, Priority, Progress, Status


class JobRequest(BaseModel):
    """A job to queue."""

    model_config = ConfigDict(extra="forbid")
    kind: str = Field(
        min_length=1, max_length=64, description="a kind that GET /v1/models lists, `train` or `evaluate`"
    )
    model: str | None = Field(default=None, min_length=1, max_length=128, description="`slug` or `slug@version`")
    dataset: str | None = Field(default=None, min_length=1, max_length=128)
    parameters: dict[str, Any] = {}
    seed: int | None = Field(default=None, ge=0, lt=1 << 53)
    priority: Priority = "normal"
    labels: dict[str, str] = Field(default={}, max_length=64, description="notes of yours, shown with the job")


class ArtifactAnswer(BaseModel):
    """A file that a job made."""

    name: str
    media_type: str
    bytes: int
    sha256: str
    url: str


class JobAnswer(BaseModel):
    """A job, as it is now."""

    id: str
    object: Literal["job"] = "job"
    kind: str
    model: str | None
    dataset: str | None
    parameters: dict[str, Any]
    seed: int | None
    priority: Priority
    labels: dict[str, str]
    status: Status
    progress: Progress
    attempts: int
    created_at: float
    started_at: float | None
    finished_at: float | None
    error: dict[str, Any] | None = Field(description="an RFC 9457 problem when the job failed")
    traceback: str | None = Field(default=None, description="of an internal error; for administrators")
    log_tail: list[str]
    result_url: str | None = Field(description="there once the job succeeded")
    events_url: str
    artifacts: list[ArtifactAnswer]

    @classmethod
    def of(
        cls, record: JobRecord, *, parameters: dict[str, Any] | None = None, traceback: str | None = None
    ) -> JobAnswer:
        """The answer for a record; ``parameters`` are those that were too large for it."""
        url = f"/v1/jobs/{record.id}"
        shared = record.model_dump(mode="json", include=set(cls.model_fields) - {"object", "artifacts", "traceback"})
        shared["parameters"] = record.parameters if parameters is None else parameters
        artifacts = [
            ArtifactAnswer(url=f"{url}/artifacts/{a.name}", **a.model_dump(exclude={"key"})) for a in record.artifacts
        ]
        return cls(
            **shared,
            traceback=traceback,
            result_url=f"{url}/result" if record.status == "succeeded" else None,
            events_url=f"{url}/events",
            artifacts=artifacts,
        )


class JobList(BaseModel):
    """Jobs, the newest first."""

    object: Literal["list"] = "list"
    data: list[JobAnswer]
    has_more: bool
