"""The card of a method: what ``card.toml`` says, checked."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Capability = Literal[
    "embed",
    "generate",
    "edit",
    "restore",
    "classify",
    "recognise",
    "summarise",
    "distance",
    "explain",
    "few-shot",
]


class Paper(BaseModel):
    """The publication that a method implements."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    title: str
    authors: str
    venue: str
    url: str


class JobKind(BaseModel):
    """A kind of queued job that a method offers beside ``train`` and ``evaluate``.

    ``parameters`` names a pydantic model in the method's ``schema.py``; ``run`` names, as
    ``module:function`` inside the method's folder, a function
    ``(job: JobContext, parameters) -> dict`` (see :mod:`models.core.jobs`).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: str = Field(pattern=r"^[a-z][a-z0-9-]{1,62}$")
    title: str
    parameters: str
    run: str
    dataset: Literal["required", "optional", "none"] = "required"
    inputs: list[Literal["image", "vector", "text", "pairs"]] = []
    publishes: bool = Field(
        default=False,
        description="it serves a version, named by its parameter `version`; a taken name is refused before the work",
    )
    any_model: bool = Field(default=False, description="its `model` may be a version of any method")
    page: str = Field(default="", description="the list in the result that GET result pages by offset and limit")
    filters: dict[str, str] = Field(default={}, description="query parameter -> field of that list's items")


class Card(BaseModel):
    """A method's identity and what a user must know before choosing it."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    slug: str = Field(pattern=r"^[a-z][a-z0-9-]{1,62}$")
    title: str
    capability: Capability
    description: str
    use_when: str
    limits: str
    licence: str
    paper: Paper
    input: str
    output: str
    trainable: list[Literal["image", "vector", "text", "pairs"]] = []
    placement: Literal["pool", "dedicated"] = "pool"
    max_batch: int = Field(default=64, ge=1, le=2048)
    calls_in_flight: int | None = Field(
        default=None,
        ge=1,
        description="calls at once in a replica, where fewer than the service's setting answer more requests",
    )
    inline_pairs: int = Field(default=0, ge=0, description="distance: n * m up to which it is answered at once")
    inline_passes: int = Field(
        default=0,
        ge=0,
        description="generate: forward passes up to which it is answered at once, as `passes` of schema.py counts them",
    )
    jobs: list[JobKind] = []

    @classmethod
    def read(cls, path: Path) -> Card:
        """Read and check ``card.toml``.

        Raises:
            ValueError: the file is not TOML or a field is missing or wrong; names the file.
        """
        try:
            return cls.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
