"""What requests, training and the jobs ``rho-search`` and ``sharpness-report`` accept. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from models.core.trainer_options import ClassifierConfig, SharpnessAware


class Params(BaseModel):
    """Parameters of one classification: there are none."""

    model_config = ConfigDict(extra="forbid")


class Config(ClassifierConfig):
    """Training of a classifier of pictures, vectors or texts with sharpness-aware minimization."""

    sharpness_aware: SharpnessAware = Field(
        default=SharpnessAware(kind="sam", rho=0.1), description="minimise the largest loss near the weights"
    )


PRESETS: Mapping[str, Config] = {
    "cpu": Config(),
    "paper": Config(
        encoder="wrn-28-10",
        epochs=200,
        batch_size=256,
        clip_norm=5.0,
        shift=4,
        sharpness_aware=SharpnessAware(kind="sam", rho=0.05),
    ),
}


class RhoSearch(BaseModel):
    """Parameters of a ``rho-search`` job."""

    model_config = ConfigDict(extra="forbid")
    grid: list[Annotated[float, Field(ge=0, le=2)]] = Field(
        default=[0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5],
        min_length=2,
        max_length=12,
        description="radii to train with, without repetition; 0 is the base optimiser",
    )
    kind: Literal["sam", "asam"] = Field(default="sam", description="what the radius is a radius of")
    seeds: int = Field(default=1, ge=1, le=5, description="trainings of each radius")
    validation_share: float = Field(
        default=0.2, ge=0.02, le=0.5, description="held out by class to choose by; copies stay on one side"
    )
    config: Config = Field(
        default=Config(test_share=0),
        description="the training; kind and rho of sharpness_aware are the search's, test_share is not used",
    )

    @model_validator(mode="after")
    def _check(self) -> RhoSearch:
        if len(set(self.grid)) < len(self.grid):
            raise ValueError("grid: a radius stands twice")
        if self.config.early_stopping is not None:
            raise ValueError("config.early_stopping: the search compares whole trainings; leave it out")
        return self


class SharpnessReport(BaseModel):
    """Parameters of a ``sharpness-report`` job."""

    model_config = ConfigDict(extra="forbid")
    samples: int = Field(default=1000, ge=10, le=10_000, description="of the data set that the loss is taken over")
    rho: float = Field(default=0.05, gt=0, le=2, description="radius of the ball in which the loss may rise")
    iterations: int = Field(default=40, ge=10, le=200, description="of the Lanczos method for the eigenvalues")
    probes: int = Field(default=64, ge=2, le=1000, description="random sign vectors for the trace")
    span: float = Field(default=1.0, gt=0, le=5, description="ends of the slices, in norms of each filter")
    points: int = Field(default=21, ge=5, le=51, description="on each axis of the slices")
