"""Means and covariances of the classes of a point cloud."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Covariance = Literal["full", "diagonal", "shrunk"]

MAX_DIMENSIONS = 256
REDUCED_DIMENSIONS = 128
AXES_FROM = 2048
_ROWS, _COLUMNS = 512, 196


@dataclass(frozen=True, eq=False)
class ClassMoments:
    """First and second moments of each class.

    Attributes:
        means: float64 ``(C, d)``.
        covariances: float64 ``(C, k, k)``, or ``(C, k)`` where only the diagonal was estimated; divisor n, not n - 1,
            so that the moments are those of the empirical distribution itself. ``k = d`` unless a basis was given.
        shrinkage: float64 ``(C,)``, the weight of the spherical target in each covariance; zero unless shrunk.
    """

    means: Tensor
    covariances: Tensor
    shrinkage: Tensor

    @property
    def traces(self) -> Tensor:
        """Total variance of each class: float64 ``(C,)``."""
        if self.covariances.ndim == 2:
            return self.covariances.sum(1)
        return self.covariances.diagonal(dim1=1, dim2=2).sum(1)


def class_moments(
    points: Tensor, labels: Tensor, weights: Tensor, classes: int, covariance: Covariance, basis: Tensor | None = None
) -> ClassMoments:
    """Estimate the moments of every class in two passes.

    ``shrunk`` is Ledoit and Wolf's (2004) estimate: the combination of the empirical covariance and a multiple of the
    identity that is nearest to the true one in expectation. It keeps the trace, and is regular for classes of fewer
    points than dimensions.

    Args:
        points: float64 ``(n, d)``.
        labels: int64 ``(n,)`` in ``0..classes - 1``, each at least once.
        weights: float64 ``(n,)``, positive.
        basis: float64 ``(d, k)`` orthonormal columns that covariances (not means) are estimated in.
    """
    mass = torch.zeros(classes, dtype=points.dtype, device=points.device).index_add_(0, labels, weights)
    relative = weights / mass[labels]
    means = points.new_zeros((classes, points.shape[1])).index_add_(0, labels, points * relative[:, None])
    found, shrinkage = [], []
    for label in range(classes):
        members = torch.nonzero(labels == label)[:, 0]
        centred = points[members] - means[label]
        if basis is not None:
            centred = centred @ basis
        share = relative[members]
        if covariance == "diagonal":
            found.append(share @ centred.square())
            shrinkage.append(0.0)
            continue
        scatter = (centred * share[:, None]).T @ centred
        amount = _ledoit_wolf(centred, share, scatter) if covariance == "shrunk" else 0.0
        found.append(_towards_sphere(scatter, amount))
        shrinkage.append(amount)
    return ClassMoments(means, torch.stack(found), torch.tensor(shrinkage, dtype=points.dtype))


def _towards_sphere(scatter: Tensor, amount: float) -> Tensor:
    shrunk = (1.0 - amount) * scatter
    shrunk.diagonal().add_(amount * scatter.trace() / len(scatter))
    return shrunk


def _ledoit_wolf(centred: Tensor, share: Tensor, scatter: Tensor) -> float:
    """The optimal weight of the spherical target, with ``sum w^2`` in the place of ``1/n`` for weighted points."""
    size = len(scatter)
    norm = float(scatter.square().sum())
    distance = norm - float(scatter.trace()) ** 2 / size
    if distance <= 1e-14 * norm:
        return 0.0
    fourth = float(share @ centred.square().sum(1).square())
    error = float(share.square().sum()) * (fourth - norm)
    return min(1.0, max(0.0, error) / distance)


def principal_basis(points: list[Tensor], dimensions: int = REDUCED_DIMENSIONS) -> tuple[Tensor, float]:
    """The leading principal axes of all points together, ``(d, dimensions)``, and the share of variance they keep.

    Of a part of more points, 2,048 that are evenly spaced in it count: good axes need no more.
    """
    mean = torch.stack([part.sum(0) for part in points]).sum(0) / sum(map(len, points))
    scatter = mean.new_zeros((len(mean), len(mean)))
    for part in points:
        _add_scatter(scatter, _spread(part), mean)
    values, axes = torch.linalg.eigh(scatter, UPLO="L")
    kept = float(values[-dimensions:].sum() / values.sum().clamp_min(torch.finfo(values.dtype).tiny))
    return axes[:, -dimensions:].contiguous(), kept


def _spread(points: Tensor) -> Tensor:
    if len(points) <= AXES_FROM:
        return points
    return points[torch.linspace(0, len(points) - 1, AXES_FROM, dtype=torch.float64, device=points.device).long()]


def _add_scatter(scatter: Tensor, points: Tensor, mean: Tensor) -> None:
    """Add ``sum (x - mean)(x - mean)^T`` to the lower triangle, in blocks that stay in a processor's cache."""
    for rows in torch.split(points, _ROWS):
        centred = rows - mean
        for start in range(0, len(mean), _COLUMNS):
            scatter[start:, start : start + _COLUMNS].addmm_(centred[:, start:].T, centred[:, start : start + _COLUMNS])
