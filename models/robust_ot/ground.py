"""The cost matrix of two sides, checked."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from models.core.inputs import Float64, InputError, Int64
from models.core.outputs import Side, Sides
from models.core.transport.costs import ground_cost
from models.core.transport.labels import label_tables
from models.robust_ot.schema import Ground

MAX_PAIRS = 100_000_000


def marginal(side: Side, name: str) -> Float64:
    """The weights of a side, uniform when it has none: float64 ``(n,)``, positive, summing to one.

    Raises:
        InputError: no points, or weights that are not positive and finite, one for each point.
    """
    count = len(side.points)
    if not count:
        raise InputError(f"{name}: no points")
    if side.weights is None:
        return np.full(count, 1.0 / count)
    weights = np.asarray(side.weights, dtype=np.float64)
    if weights.shape != (count,) or not np.isfinite(weights).all() or weights.min() <= 0.0:
        raise InputError(f"{name}.weights: expected {count} positive numbers, one for each point")
    return np.asarray(weights / weights.sum())


def cost_matrix(sides: Sides, ground: Ground) -> Float64:
    """The ground cost to the power ``p``, float64 ``(n, m)``.

    With ``labelled`` it is ``d(x, y)^p + W(label of x, label of y)^p``, where W is the 2-Wasserstein distance between
    Gaussians fitted to the classes: the ground cost of optimal transport between labelled data sets.

    Raises:
        InputError: sides that do not fit together, not finite, or too many pairs.
    """
    a, b = sides.a, sides.b
    n, m = len(a.points), len(b.points)
    if n * m > MAX_PAIRS:
        raise InputError(f"{n} x {m} pairs are more than {MAX_PAIRS}: draw fewer samples from the sides")
    if sides.cost is not None:
        cost = np.asarray(sides.cost, dtype=np.float64)
        if cost.shape != (n, m) or not np.isfinite(cost).all() or cost.min() < 0.0:
            raise InputError(f"cost_matrix: expected {n} rows of {m} finite, non-negative numbers")
        powered = cost**ground.p
    else:
        for side, name in ((a, "a"), (b, "b")):
            if side.points.ndim != 2 or not side.points.shape[1] or not np.isfinite(side.points).all():
                raise InputError(f"{name}.points: expected finite numbers in rows of equal length")
        if a.points.shape[1] != b.points.shape[1]:
            raise InputError(
                f"b.points: rows of {b.points.shape[1]} numbers, while those of a have {a.points.shape[1]}"
            )
        powered = ground_cost(a.points, b.points, p=ground.p, metric=ground.metric)
    if ground.labelled:
        powered = powered + label_cost(a, b, ground.p)
    return powered


def label_cost(a: Side, b: Side, p: int) -> Float64:
    """The label part of the labelled cost, float64 ``(n, m)``; label names never enter it.

    Raises:
        InputError: a side has no labels.
    """
    rows, columns, table = class_costs(a, b, p)
    return np.asarray(table[np.ix_(rows, columns)])


def class_costs(a: Side, b: Side, p: int) -> tuple[Int64, Int64, Float64]:
    """Labels of both sides as indices ``(n,)`` and ``(m,)`` into a table ``(C, C')`` of class distances to the power p.

    Raises:
        InputError: a side has no labels.
    """
    sides, labels = [], []
    for side, name in ((a, "a"), (b, "b")):
        if side.labels is None:
            raise InputError(f"{name}.labels: `labelled` needs a label for each point")
        labels.append(np.unique(side.labels, return_inverse=True)[1].astype(np.int64))
        sides.append(replace(side, labels=labels[-1]))
    return labels[0], labels[1], label_tables(sides[0], sides[1], "gaussian").ab ** p
