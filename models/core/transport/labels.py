"""Distances between classes, each seen as the distribution of its points (Alvarez-Melis and Fusi 2020, section 3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from models.core.inputs import Float64, Int64
from models.core.outputs import Side
from models.core.transport.costs import ground_cost, squared_distances
from models.core.transport.exact import exact_transport
from models.core.transport.moments import MAX_DIMENSIONS, ClassMoments, Covariance, class_moments, principal_basis

LabelDistance = Literal["gaussian", "exact", "means", "upper-bound"]

_PAIRS_AT_ONCE = 64


@dataclass(frozen=True, eq=False)
class LabelTables:
    """Distances between classes, not to any power.

    Attributes:
        ab: float64 ``(C, C')`` between the classes of the two sides.
        aa: float64 ``(C, C)`` within the first side, symmetric with a zero diagonal; None when not asked for.
        bb: float64 ``(C', C')`` within the second side, likewise.
        converged: every exact problem has; true for closed forms.
        explained_variance: share of the variance that covariances were estimated from (below 1: on principal axes).
        shrinkage: largest weight of the spherical target in a shrunk covariance.
    """

    ab: Float64
    aa: Float64 | None
    bb: Float64 | None
    converged: bool = True
    explained_variance: float = 1.0
    shrinkage: float = 0.0


def label_tables(
    a: Side,
    b: Side,
    kind: LabelDistance,
    *,
    covariance: Covariance = "shrunk",
    p: int = 2,
    within: bool = False,
    device: torch.device | str = "cpu",
) -> LabelTables:
    """Distances between the classes of two labelled sides.

    ``means``, ``gaussian`` and ``upper-bound`` are closed forms of the 2-Wasserstein distance: between point masses at
    the means, between Gaussians of the same moments, and of the independent coupling. With ``covariance="full"`` they
    bracket ``exact``, the Wasserstein distance of order ``p`` between the classes' points by network simplex:
    means <= gaussian <= exact <= upper-bound for ``p = 2``. Beyond 256 dimensions, covariances are estimated on the
    128 leading principal axes of both sides together.

    Args:
        a: labelled side; every label in ``0..C-1`` occurs.
        b: likewise, with labels of its own.
        within: also the tables within each side, as debiased divergences need them.

    Raises:
        ValueError: a side has no labels, or lacks one of its classes.
    """
    sides = _labelled(a, "a"), _labelled(b, "b")
    if kind == "exact":
        return _exact_tables(*sides, p, within)
    return _closed_tables(sides, kind, covariance, within, torch.device(device))


class _Labelled(NamedTuple):
    points: Float64
    labels: Int64
    weights: Float64
    classes: int


def _labelled(side: Side, name: str) -> _Labelled:
    if side.labels is None:
        raise ValueError(f"side {name} has no labels")
    classes = int(side.labels.max(initial=0)) + 1
    if np.bincount(side.labels, minlength=1).min() == 0:
        raise ValueError(f"side {name}: every label in 0..{classes - 1} must occur")
    weights = uniform(len(side.points)) if side.weights is None else side.weights
    return _Labelled(side.points, side.labels, weights, classes)


def _closed_tables(
    labelled: tuple[_Labelled, _Labelled],
    kind: LabelDistance,
    covariance: Covariance,
    within: bool,
    device: torch.device,
) -> LabelTables:
    points = [torch.from_numpy(side.points).to(device) for side in labelled]
    basis, explained = None, 1.0
    if kind == "gaussian" and covariance != "diagonal" and points[0].shape[1] > MAX_DIMENSIONS:
        basis, explained = principal_basis(points)
    kept: Covariance = covariance if kind == "gaussian" else "diagonal"
    sides = [_moments(side, rows, kept, basis) for side, rows in zip(labelled, points, strict=True)]
    first, second = sides
    ab = _closed(first, second, kind)
    aa, bb = (_closed(side, side, kind) if within else None for side in sides)
    for table in (aa, bb):
        if table is not None:
            np.fill_diagonal(table, 0.0)
    shrinkage = max(float(side.shrinkage.max()) for side in sides)
    return LabelTables(ab, aa, bb, True, explained, shrinkage)


def _moments(side: _Labelled, points: Tensor, covariance: Covariance, basis: Tensor | None) -> ClassMoments:
    labels = torch.from_numpy(side.labels).to(points.device)
    weights = torch.from_numpy(side.weights).to(points.device)
    return class_moments(points, labels, weights, side.classes, covariance, basis)


def _closed(first: ClassMoments, second: ClassMoments, kind: LabelDistance) -> Float64:
    squares = squared_distances(first.means, second.means)
    if kind == "upper-bound":
        squares = squares + first.traces[:, None] + second.traces[None, :]
    elif kind == "gaussian":
        squares = squares + bures(first.covariances, second.covariances)
    distances: Float64 = squares.sqrt().cpu().numpy()
    return distances


def bures(first: Tensor, second: Tensor) -> Tensor:
    """Squared Bures distances ``tr(S + S' - 2 (S^1/2 S' S^1/2)^1/2)`` of all pairs: float64 ``(C, C')``.

    The trace of the root is the nuclear norm of ``S^1/2 S'^1/2``, which needs one eigendecomposition a covariance
    and one singular value decomposition a pair. Diagonal covariances ``(C, d)`` commute: ``|S^1/2 - S'^1/2|_F^2``.

    Args:
        first: float64 ``(C, d, d)`` symmetric positive semi-definite, or ``(C, d)``.
        second: float64 ``(C', d, d)`` or ``(C', d)``.
    """
    if first.ndim == 2:
        return squared_distances(first.clamp_min(0.0).sqrt(), second.clamp_min(0.0).sqrt())
    traces = first.diagonal(dim1=1, dim2=2).sum(1)[:, None] + second.diagonal(dim1=1, dim2=2).sum(1)[None, :]
    roots = _square_roots(first), _square_roots(second)
    fidelity = torch.empty_like(traces)
    step = max(1, _PAIRS_AT_ONCE // len(second))
    for start in range(0, len(first), step):
        products = roots[0][start : start + step, None] @ roots[1][None]
        fidelity[start : start + step] = torch.linalg.svdvals(products).sum(-1)
    found = (traces - 2.0 * fidelity).clamp_min(0.0)
    # What is left of two equal covariances is the rounding error of their traces.
    rounding = 8.0 * first.shape[-1] * torch.finfo(first.dtype).eps * traces
    return torch.where(found > rounding, found, torch.zeros_like(found))


def _square_roots(covariances: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(0.5 * (covariances + covariances.mT))
    roots: Tensor = (vectors * values.clamp_min(0.0).sqrt()[:, None, :]) @ vectors.mT
    return roots


def _exact_tables(a: _Labelled, b: _Labelled, p: int, within: bool) -> LabelTables:
    first, second = _classes(a), _classes(b)
    done = [True]
    ab = np.array([[_class_distance(left, right, p, done) for right in second] for left in first])
    aa, bb = (_symmetric(classes, p, done) if within else None for classes in (first, second))
    return LabelTables(ab, aa, bb, all(done))


def _symmetric(classes: list[tuple[Float64, Float64]], p: int, done: list[bool]) -> Float64:
    table = np.zeros((len(classes), len(classes)))
    for i, j in zip(*np.triu_indices(len(classes), 1), strict=True):
        table[i, j] = table[j, i] = _class_distance(classes[i], classes[j], p, done)
    return table


def _classes(side: _Labelled) -> list[tuple[Float64, Float64]]:
    members = [np.flatnonzero(side.labels == label) for label in range(side.classes)]
    return [(side.points[rows], side.weights[rows] / side.weights[rows].sum()) for rows in members]


def _class_distance(left: tuple[Float64, Float64], right: tuple[Float64, Float64], p: int, done: list[bool]) -> float:
    found = exact_transport(left[1], right[1], ground_cost(left[0], right[0], p=p))
    done.append(found.converged)
    return float(max(0.0, found.cost) ** (1.0 / p))


def uniform(count: int) -> Float64:
    """Equal weights that sum to one: float64 ``(count,)``."""
    return np.full(count, 1.0 / count)
