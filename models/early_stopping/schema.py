"""What requests, training and the jobs ``robust-train`` and ``noise-robustness-report`` accept. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from models.core.trainer_options import ClassifierConfig, EarlyStopping


class Params(BaseModel):
    """Parameters of one classification: there are none."""

    model_config = ConfigDict(extra="forbid")


class Config(ClassifierConfig):
    """Training of a classifier that stops before wrong labels are fitted."""

    epochs: int = Field(default=30, ge=1, le=1000, description="passes over the data, at most")
    batch_size: int = Field(default=64, ge=2, le=4096, description="samples of one step")
    optimizer: Literal["sgd", "adam", "gd"] = Field(
        default="adam", description="sgd with Nesterov momentum 0.9; adam; gd: all samples in one step, no momentum"
    )
    learning_rate: float = Field(default=1e-3, gt=0, le=10, description="at the start")
    cosine: bool = Field(
        default=False, description="the rate falls to zero along a half cosine, which hastens memorising; else constant"
    )
    weight_decay: float = Field(default=0.0, ge=0, le=1, description="L2 penalty of the optimiser")
    early_stopping: EarlyStopping | None = Field(
        default=EarlyStopping(), description="when to stop and which weights to keep; null: train all epochs"
    )


PRESETS: Mapping[str, Config] = {
    "cpu": Config(),
    "paper": Config(encoder="two-conv", epochs=200, batch_size=128),
}


class RobustTrain(Config):
    """Parameters of a ``robust-train`` job: a training configuration and the name of the version."""

    version: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$",
        description="name of the new version; made from the job's id by default",
    )

    @model_validator(mode="after")
    def _stops(self) -> RobustTrain:
        if self.early_stopping is None:
            raise ValueError("early_stopping: this job is about it; a train job trains without")
        return self


class NoiseRobustnessReport(BaseModel):
    """Parameters of a ``noise-robustness-report`` job."""

    model_config = ConfigDict(extra="forbid")
    inject: list[Annotated[float, Field(ge=0, le=0.9)]] = Field(
        default=[0, 0.2, 0.4],
        min_length=1,
        max_length=6,
        description="shares of labels that are moved uniformly to other classes, one training each; 0: as given",
    )
    config: Config = Field(
        default=Config(test_share=0),
        description="the training; it runs all epochs and tells where it would have stopped, by noisy-validation",
    )
    spectrum_samples: int = Field(
        default=500, ge=50, le=2000, description="samples of the kernel's spectrum, drawn by class"
    )

    @model_validator(mode="after")
    def _check(self) -> NoiseRobustnessReport:
        if len(set(self.inject)) < len(self.inject):
            raise ValueError("inject: a rate stands twice")
        stopping = self.config.early_stopping
        if stopping is None or stopping.rule != "noisy-validation":
            raise ValueError("config.early_stopping: the report compares epochs by the rule noisy-validation")
        return self
