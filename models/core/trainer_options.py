"""Options that every gradient trainer can offer in its ``Config``. Pydantic only: the gateway reads them.

``sharpness_aware: SharpnessAware`` is carried out by :class:`models.core.optim.SAM`, ``early_stopping: EarlyStopping``
by :class:`models.core.early_stopping.EarlyStopper`.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

DEFAULT_RADIUS = {"none": 0.0, "sam": 0.05, "asam": 0.5}


class SharpnessAware(BaseModel):
    """Sharpness-aware minimization (Foret et al., ICLR 2021; ``asam``: Kwon et al., ICML 2021)."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: Literal["none", "sam", "asam"] = Field(
        default="none", description="sam: one radius for all weights; asam: the radius scales with each weight"
    )
    rho: float | None = Field(
        default=None, ge=0, le=2, description="radius of the ball around the weights; unset: 0.05 for sam, 0.5 for asam"
    )
    p: Literal[2, "inf"] = Field(default=2, description="norm of the ball")
    m: int | None = Field(
        default=None,
        ge=1,
        description="samples that share a perturbation; unset: the whole batch. A batch norm sees parts of this size",
    )
    every: int = Field(
        default=1, ge=1, le=20, description="renew the perturbation every this many steps; between, one pass a step"
    )
    start_fraction: float = Field(
        default=0.0, ge=0, le=1, description="share of the training that comes first, without perturbation"
    )
    include: Literal["all", "weights_only"] = Field(
        default="all", description="what is perturbed; weights_only leaves out biases and the scales of normalisation"
    )
    second_pass_batch: float = Field(
        default=1.0, gt=0, le=1, description="share of the batch whose gradient at the perturbed weights is taken"
    )
    decay_in_perturbation: bool = Field(
        default=False, description="the penalty of the optimiser's weight decay belongs to the perturbed loss too"
    )

    @property
    def radius(self) -> float:
        """``rho``, or the default of the kind."""
        return DEFAULT_RADIUS[self.kind] if self.rho is None or self.kind == "none" else self.rho

    @model_validator(mode="after")
    def _check(self) -> SharpnessAware:
        if self.every > 1 and self.m is not None:
            raise ValueError("every: a perturbation for each m samples belongs to its batch and cannot be kept")
        return self


class EarlyStopping(BaseModel):
    """When to stop and which weights to keep (Li, Soltanolkotabi & Oymak, AISTATS 2020)."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    rule: Literal["noisy-validation", "distance", "label-wave", "fixed"] = Field(
        default="noisy-validation",
        description="accuracy on held-out labels, noisy as they are; distance of the weights from their start; "
        "fewest training predictions that change between epochs (experimental); a fixed epoch",
    )
    patience: int = Field(default=5, ge=1, le=50, description="epochs without improvement before the training stops")
    min_epochs: int = Field(default=2, ge=1, le=1000, description="no stop before; also no earlier weights are kept")
    validation_share: float = Field(
        default=0.1, ge=0.02, le=0.5, description="held out by class for `noisy-validation`; copies stay on one side"
    )
    smoothing: Literal[1, 3, 5, 7, 9] = Field(default=3, description="epochs of the running median over the curve")
    one_standard_error: bool = Field(
        default=False,
        description="`noisy-validation`: the earliest epoch that is within one standard error of the best",
    )
    distance_budget: float | None = Field(
        default=None, ge=0.05, le=10, description="`distance`: largest |W - W0| / |W0|"
    )
    epochs: int | None = Field(default=None, ge=1, le=1000, description="`fixed`: the epoch whose weights are kept")
    restore: Literal["best", "last"] = Field(default="best", description="which weights the version gets")
    continue_to_end: bool = Field(
        default=False, description="train all epochs anyway, to compare the stopped weights with the last ones"
    )
    noise_rate: float | None = Field(
        default=None, ge=0, le=0.9, description="share of wrong labels, if known: gives an estimate of clean accuracy"
    )

    @model_validator(mode="after")
    def _check(self) -> EarlyStopping:
        if self.rule == "distance" and self.distance_budget is None:
            raise ValueError(
                "distance_budget: the rule `distance` needs it; calibrate it on this network and optimiser"
            )
        if self.rule == "fixed" and self.epochs is None:
            raise ValueError("epochs: the rule `fixed` needs it")
        if self.one_standard_error and self.rule != "noisy-validation":
            raise ValueError("one_standard_error: only the accuracy of `noisy-validation` has a standard error")
        return self


class ClassifierConfig(BaseModel):
    """Training of a classifier of pictures, vectors or texts, carried out by :mod:`models.core.classification`."""

    model_config = ConfigDict(extra="forbid")
    encoder: Literal["auto", "mlp", "small-cnn", "two-conv", "wrn-10-2", "wrn-28-10"] = Field(
        default="auto", description="the network; auto: small-cnn for pictures, mlp for vectors"
    )
    epochs: int = Field(default=15, ge=1, le=1000, description="passes over the data, at most")
    batch_size: int = Field(default=128, ge=2, le=4096, description="samples of one step")
    optimizer: Literal["sgd", "adam", "gd"] = Field(
        default="sgd", description="sgd with Nesterov momentum 0.9; adam; gd: all samples in one step, no momentum"
    )
    learning_rate: float = Field(default=0.1, gt=0, le=10, description="at the start")
    cosine: bool = Field(default=True, description="the rate falls to zero along a half cosine; else it is constant")
    weight_decay: float = Field(default=5e-4, ge=0, le=1, description="L2 penalty of the optimiser")
    clip_norm: float | None = Field(default=None, gt=0, description="largest global norm of the gradient")
    shift: int = Field(
        default=0, ge=0, le=8, description="pixels that pictures are moved by, and mirrored, at random; 0: neither"
    )
    image_size: int = Field(default=64, ge=8, le=256, description="larger pictures are scaled down to this side")
    test_share: float = Field(
        default=0.1, ge=0, le=0.5, description="held out to measure the accuracy, for nothing else"
    )
    sharpness_aware: SharpnessAware = Field(
        default=SharpnessAware(), description="minimise the largest loss near the weights"
    )
    early_stopping: EarlyStopping | None = Field(
        default=None, description="stop before wrong labels are fitted; unset: train all epochs"
    )
