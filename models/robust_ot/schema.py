"""Parameters of the robust distance, of its jobs, and of training the robust generator."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from models.robust_ot.bounds import protecting_radius

DEFAULT_FRACTION = 0.05


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Ground(_Strict):
    """The ground cost and the solver."""

    p: Literal[1, 2] = Field(default=1, description="the cost is the ground distance to this power")
    metric: Literal["euclidean", "cosine"] = Field(default="euclidean", description="ground distance of the points")
    labelled: bool = Field(
        default=False,
        description="add the Gaussian 2-Wasserstein distance between the classes of two points to their distance "
        "(both sides need labels)",
    )
    solver: Literal["certified", "entropic"] = Field(
        default="certified",
        description="upper bound by exact transport between the reweighted sides, or by rounding the smoothed coupling",
    )
    epsilon: float = Field(default=0.01, ge=1e-3, le=1.0, description="first smoothing, as a share of the median cost")
    tolerance: float = Field(default=5e-3, ge=1e-5, le=0.5, description="relative gap between the bounds to stop at")


class Params(Ground):
    """Parameters of one robust distance.

    Each side's radius is given as the share of outliers that it can drop, or as the radius itself.
    """

    outlier_fraction_a: float | None = Field(
        default=None,
        ge=0.0,
        le=0.45,
        description=f"share of outliers in a ({DEFAULT_FRACTION} when rho_a is absent too)",
    )
    outlier_fraction_b: float | None = Field(
        default=None, ge=0.0, le=0.45, description="share of outliers in b (0 when rho_b is absent too)"
    )
    rho_a: float | None = Field(default=None, ge=0.0, description="chi-square radius of a, up to (n-1)/2")
    rho_b: float | None = Field(default=None, ge=0.0, description="chi-square radius of b, up to (m-1)/2")

    @model_validator(mode="after")
    def _one_form(self) -> Self:
        for side in "ab":
            if getattr(self, f"rho_{side}") is not None and getattr(self, f"outlier_fraction_{side}") is not None:
                raise ValueError(f"give outlier_fraction_{side} or rho_{side}, not both")
        return self

    @property
    def radii(self) -> tuple[float, float]:
        """``(rho_a, rho_b)``, with the half: ``1/2 sum a (w - 1)^2 <= rho``."""
        return (
            _radius(self.rho_a, self.outlier_fraction_a, DEFAULT_FRACTION),
            _radius(self.rho_b, self.outlier_fraction_b, 0.0),
        )


def _radius(rho: float | None, fraction: float | None, default: float) -> float:
    return rho if rho is not None else protecting_radius(default if fraction is None else fraction)


class RobustDistanceParameters(Ground):
    """Parameters of the job ``robust-distance``: the distance from the job's data set to ``b`` at many radii."""

    b: str = Field(description="id of the data set that is compared with")
    outlier_fractions: list[float] = Field(
        default=[0.0, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3],
        min_length=1,
        max_length=50,
        description="shares of outliers in a, each in [0, 0.45]; the curve is computed at each",
    )
    outlier_fraction_b: float = Field(default=0.0, ge=0.0, le=0.45)
    max_samples: int = Field(default=2000, ge=10, le=10_000, description="a larger side is drawn from at random")

    @model_validator(mode="after")
    def _fractions(self) -> Self:
        if not all(0.0 <= fraction <= 0.45 for fraction in self.outlier_fractions):
            raise ValueError("outlier_fractions: each lies in [0, 0.45]")
        return self


class OutlierRankingParameters(Ground):
    """Parameters of the job ``outlier-ranking``: weights of the job's data set against a trusted one."""

    trusted: str = Field(description="id of the data set that is known to be clean")
    outlier_fraction: float = Field(default=0.05, gt=0.0, le=0.45, description="expected share of outliers")
    truth: list[int] = Field(default=[], description="indices of known outliers, to measure the ranking by")
    max_samples: int = Field(
        default=2000,
        ge=10,
        le=10_000,
        description="samples of either side that the potentials are computed on; every sample is ranked",
    )


class AdaptParameters(_Strict):
    """Parameters of the job ``adapt``: a classifier of the job's labelled data set for the samples of ``target``."""

    target: str = Field(
        description="id of the data set to adapt to; its labels, if it has any, only measure the accuracy"
    )
    outlier_fraction: float = Field(
        default=0.1,
        ge=0.0,
        le=0.45,
        description="expected share of the target that belongs to no class; 0: plain adversarial adaptation",
    )
    steps: int = Field(default=2000, ge=1, le=1_000_000, description="optimisation steps")
    source_steps: int = Field(
        default=500, ge=0, le=1_000_000, description="first steps, on the labelled source alone; `steps`: no adaptation"
    )
    batch: int = Field(default=64, ge=2, le=4096, description="samples of each domain in a step")
    learning_rate: float = Field(
        default=0.01, gt=0.0, le=1.0, description="of the classifier, at the start; falls slowly"
    )
    critic_learning_rate: float = Field(
        default=1e-3, gt=0.0, le=0.1, description="of the critic that tells domains apart"
    )
    critic_steps: int = Field(
        default=5, ge=1, le=100, description="critic steps for each adversarial step of the features"
    )
    entropy_weight: float = Field(
        default=0.0, ge=0.0, le=10.0, description="weight of the entropy of the target's predictions in the loss"
    )
    solve_every: int = Field(default=100, ge=1, description="steps between two solutions for the target's weights")
    image_size: int = Field(default=64, ge=8, le=256, description="larger pictures are scaled down to this side")

    @property
    def rho(self) -> float:
        """Radius of the chi-square ball around the target."""
        return protecting_radius(self.outlier_fraction)


class Config(_Strict):
    """Training configuration of the robust Wasserstein GAN with gradient penalty."""

    size: Literal[28, 32] = Field(default=28, description="height and width that pictures are fitted to")
    latent: int = Field(default=64, ge=2, le=1024, description="dimensions of the latent vector")
    width: int = Field(default=32, ge=4, le=256, description="channels of the widest maps")
    batch: int = Field(default=64, ge=2, le=4096, description="pictures in a step")
    steps: int = Field(default=9000, ge=1, le=10_000_000, description="critic steps")
    critic_steps: int = Field(default=3, ge=1, le=20, description="critic steps for each step of the generator")
    learning_rate: float = Field(default=1e-4, gt=0.0, le=0.1)
    betas: tuple[float, float] = Field(default=(0.5, 0.9), description="Adam's decay rates")
    penalty: float = Field(default=10.0, ge=0.0, description="weight of the gradient penalty")
    outlier_fraction: float = Field(
        default=0.05, ge=0.0, le=0.45, description="expected share of outliers; 0 trains a plain WGAN-GP"
    )
    weighting: Literal["network", "discrete"] = Field(
        default="network",
        description="a network of the picture, trained beside the critic, or one weight a picture, solved for exactly",
    )
    weight_every: int = Field(default=2, ge=1, description="critic steps between two steps of the weights network")
    solve_every: int = Field(default=100, ge=1, description="critic steps between two solutions for the weights")
    score_momentum: float = Field(
        default=0.9, ge=0.0, lt=1.0, description="part of the earlier scores in those that the weights are solved from"
    )
    warmup: int = Field(
        default=1200,
        ge=0,
        description="critic steps before the first weight moves; the first critics rank outliers the wrong way round",
    )

    @property
    def rho(self) -> float:
        """Radius of the chi-square ball around the training pictures."""
        return protecting_radius(self.outlier_fraction)


PRESETS = {
    "cpu": Config(),
    "paper": Config(
        size=32, latent=128, width=64, batch=128, critic_steps=5, steps=1_950_000, weight_every=5, warmup=300
    ),
}
