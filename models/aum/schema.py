"""What requests, training and the ``mislabeled-detection`` job accept. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from models.core.trainer_options import EarlyStopping, SharpnessAware

Encoder = Literal["auto", "small-cnn", "resnet32", "mlp"]
_MODEL_ID = r"^(auto|small-cnn|resnet32|mlp|[a-z][a-z0-9-]{1,62}(@[A-Za-z0-9][A-Za-z0-9._-]{0,62})?)$"


class Params(BaseModel):
    """Parameters of one classification: there are none."""

    model_config = ConfigDict(extra="forbid")


class Config(BaseModel):
    """Training of an ordinary classifier on images, vectors or text."""

    model_config = ConfigDict(extra="forbid")
    encoder: Encoder = Field(default="auto", description="auto: small-cnn for images, mlp for vectors and text")
    epochs: int = Field(default=12, ge=1, le=500)
    batch_size: int = Field(default=64, ge=2, le=4096)
    learning_rate: float = Field(default=0.1, gt=0, le=10, description="divided by 10 after 50% and 75% of the epochs")
    weight_decay: float = Field(default=1e-4, ge=0, le=1)
    augment: bool = Field(default=False, description="random crops and flips; not for digits or letters")
    image_size: int = Field(default=64, ge=8, le=512, description="larger pictures are scaled down to this side")
    validation_share: float = Field(default=0.1, ge=0, le=0.5, description="held out to measure the accuracy")
    drop_indices: list[int] = Field(
        default=[], description="positions of samples to leave out, e.g. suspects of a mislabeled-detection job"
    )
    sharpness_aware: SharpnessAware = Field(
        default=SharpnessAware(), description="minimise the largest loss near the weights"
    )
    early_stopping: EarlyStopping | None = Field(
        default=None, description="stop before wrong labels are fitted; unset: train all epochs"
    )


PRESETS: Mapping[str, Config] = {
    "cpu": Config(),
    "paper": Config(encoder="resnet32", epochs=300, batch_size=256, augment=True),
}

_PAPER: Mapping[str, Any] = {"epochs": 150, "augment": True}


class MislabeledDetection(BaseModel):
    """Parameters of a ``mislabeled-detection`` job."""

    model_config = ConfigDict(extra="forbid")
    preset: Literal["cpu", "paper"] = Field(
        default="cpu",
        description="what fields that are not given mean; paper: ResNet-32 for images, 150 epochs, augmentation",
    )
    encoder: str = Field(
        default="auto",
        pattern=_MODEL_ID,
        description="auto, small-cnn, resnet32, mlp, or the id of an embedding model whose vectors an MLP learns from",
    )
    epochs: int = Field(default=8, ge=2, le=300, description="stop before the wrong labels are memorised")
    skip_epochs: int = Field(default=1, ge=0, description="first epochs that are not counted; less than `epochs`")
    folds: int = Field(default=2, ge=1, le=5, description="runs with disjoint threshold samples")
    percentile: float = Field(default=99, ge=50, le=100, description="of the threshold samples' AUM: the cut")
    threshold_samples: int | Literal["auto"] = Field(
        default="auto", description="auto: N // (classes + 1), at most 10% of N; or 10 to N // 2"
    )
    vote: Literal["all", "any", "majority"] = Field(
        default="all", description="how many of the runs that may judge a sample must flag it"
    )
    batch_size: int = Field(default=64, ge=2, le=4096, description="small batches memorise less")
    learning_rate: float = Field(default=0.1, gt=0, le=10, description="constant while margins are counted")
    weight_decay: float = Field(default=1e-4, ge=0, le=1)
    augment: bool = Field(default=False, description="random crops and flips; not for digits or letters")
    image_size: int = Field(default=64, ge=8, le=512, description="larger pictures are scaled down to this side")
    margin: Literal["logit", "probability"] = "logit"
    retrain: bool = Field(default=True, description="measure what training without the suspects gains")
    retrain_seeds: int = Field(default=3, ge=1, le=5)
    trusted_test: str | None = Field(
        default=None,
        pattern=r"^ds_[A-Za-z0-9_-]{1,128}$",
        description="id of a data set with clean labels to measure the gain on; else 10% of the noisy data is held out",
    )
    keep_per_class: int = Field(
        default=20, ge=0, le=10_000, description="the cleaned set keeps at least this many samples of each class"
    )
    trajectories: bool = Field(default=False, description="also keep every sample's margin at every epoch")

    @model_validator(mode="before")
    @classmethod
    def _fill_preset(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and data.get("preset") == "paper":
            return {**_PAPER, **data}
        return data

    @model_validator(mode="after")
    def _check(self) -> MislabeledDetection:
        if self.skip_epochs >= self.epochs:
            raise ValueError(f"skip_epochs ({self.skip_epochs}) must be less than epochs ({self.epochs})")
        if isinstance(self.threshold_samples, int) and self.threshold_samples < 10:
            raise ValueError("threshold_samples is auto or at least 10")
        return self
