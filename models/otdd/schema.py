"""Parameters of one distance and of the job kinds."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Params(BaseModel):
    """How two labelled data sets are compared.

    The ground cost is ``lambda_x d(x, x')^p + lambda_y W(y, y')^p``, without a factor 1/2, and the distance is the
    p-th root of its optimal transport.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    p: Literal[1, 2] = Field(default=2, description="power of the ground distance")
    solver: Literal["exact", "sinkhorn", "sinkhorn-divergence"] = Field(
        default="sinkhorn-divergence",
        description="network simplex in float64; the transport cost of the entropic coupling (biased upwards); the "
        "debiased entropic divergence, zero between equal sets",
    )
    epsilon: float = Field(
        default=0.01, ge=1e-4, le=10.0, description="entropic regularisation as a fraction of the median cost"
    )
    label_distance: Literal["gaussian", "exact", "means", "upper-bound", "none"] = Field(
        default="gaussian",
        description="distance between classes: Wasserstein between Gaussians of their moments, between their points "
        "(slow), between their means, of the independent coupling; none ignores labels. All but `exact` are "
        "2-Wasserstein distances whatever p is",
    )
    method: Literal["precomputed", "augmented"] = Field(
        default="precomputed",
        description="a table of class distances, or points with their class's mean and standard deviations appended "
        "(needs label_distance gaussian, covariance diagonal and p = 2, and is then the same number)",
    )
    covariance: Literal["full", "diagonal", "shrunk"] = Field(
        default="shrunk", description="of each class: empirical, its diagonal, or shrunk by Ledoit and Wolf"
    )
    lambda_x: float = Field(default=1.0, ge=0.0, le=100.0, description="weight of the features")
    lambda_y: float = Field(default=1.0, ge=0.0, le=100.0, description="weight of the classes")
    max_samples: int = Field(default=5000, ge=100, le=20_000, description="a larger side is drawn from at random")
    min_label_count: int = Field(
        default=2, ge=1, le=10_000, description="classes with fewer points are left out, and reported"
    )
    unlabelled: Literal["error", "cluster"] = Field(
        default="error",
        description="a side without labels is refused, or clustered by k-means into as many classes as the other side "
        "has (10 when neither has labels)",
    )
    repeats: int = Field(
        default=1, ge=1, le=20, description="random subsamples whose mean is the distance, where a side is drawn from"
    )
    seed: int = Field(default=0, ge=0, lt=1 << 32, description="of subsamples and clusterings")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        fitting = self.label_distance == "gaussian" and self.covariance == "diagonal" and self.p == 2
        if self.method == "augmented" and not fitting:
            raise ValueError("method: augmented needs label_distance gaussian, covariance diagonal and p = 2")
        if self.lambda_x == 0.0 and (self.lambda_y == 0.0 or self.label_distance == "none"):
            raise ValueError("lambda_x and lambda_y: nothing is left to compare")
        return self

    @property
    def labelled(self) -> bool:
        """Whether labels enter at all."""
        return self.label_distance != "none"


class Config(BaseModel):
    """There is nothing to train."""

    model_config = ConfigDict(extra="forbid")


Features = Field(
    default="raw",
    description="`raw` pixels in [0, 1] or vectors, or the id of an embedding model (`slug` or `slug@version`) that "
    "the samples are embedded with first",
    max_length=200,
)


class DatasetDistance(Params):
    """Parameters of the job `dataset-distance`: all pairs of the job's data set (when given) and ``datasets``."""

    datasets: list[str] = Field(min_length=1, max_length=64, description="ids of data sets")
    features: str = Features
    return_coupling: bool = Field(
        default=False,
        description="also write every pair's sample coupling (largest entries of each row) as an artifact",
    )


class TransferRank(Params):
    """Parameters of the job `transfer-rank`: rank ``sources`` for the job's data set, the target."""

    sources: list[str] = Field(min_length=1, max_length=64, description="ids of candidate source data sets")
    features: str = Features
    measure_gain: bool = Field(
        default=False,
        description="also measure, for data sets of pictures, by how much pretraining a small network on each source "
        "lowers the error on the target (minutes a source)",
    )
    shots: int = Field(default=10, ge=1, le=1000, description="measure_gain: labelled target samples per class")
    gain_seeds: int = Field(default=3, ge=1, le=20, description="measure_gain: repetitions")
