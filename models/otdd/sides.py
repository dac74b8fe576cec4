"""Getting two sides ready: labels, subsamples, classes that are too small."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from models.core.inputs import Float64, Int64
from models.core.method import MethodError
from models.core.outputs import Side
from models.core.transport.clouds import draw
from models.core.transport.labels import uniform
from models.otdd.schema import Params

CLUSTERS = 10


@dataclass(frozen=True, eq=False)
class Prepared:
    """One side as the solver takes it.

    Attributes:
        side: at most ``max_samples`` rows; weights sum to one; labels, when they count, are ``0..C-1``, each present.
        rows: int64, where each row stood in the side that was given.
        given: rows of the side that was given.
        dropped: classes that were left out, with their names and counts.
        clustered: the labels are clusters.
    """

    side: Side
    rows: Int64
    given: int
    dropped: list[dict[str, Any]] = field(default_factory=list)
    clustered: bool = False

    @property
    def weights(self) -> Float64:
        """Float64 ``(n,)``."""
        return uniform(len(self.rows)) if self.side.weights is None else self.side.weights


def prepare(a: Side, b: Side, params: Params, seed: int) -> tuple[Prepared, Prepared]:
    """Draw, label and filter both sides.

    Raises:
        MethodError: points of different length, labels are missing, or no class is large enough.
    """
    if a.points.shape[1] != b.points.shape[1]:
        raise MethodError(
            f"b: points of {b.points.shape[1]} numbers cannot be compared with {a.points.shape[1]}; resize or embed "
            "both into one space"
        )
    sides = [_draw(side, params, seed + offset) for offset, side in enumerate((a, b))]
    if not params.labelled:
        return _unlabelled(sides[0]), _unlabelled(sides[1])
    first, second = (
        _cluster(side, other, name, params, seed)
        for side, other, name in zip(sides, reversed(sides), "ab", strict=True)
    )
    return _filter(first, "a", params), _filter(second, "b", params)


def _draw(side: Side, params: Params, seed: int) -> Prepared:
    rows = draw(len(side.points), params.max_samples, seed)
    return Prepared(_select(side, rows), rows, len(side.points))


def _unlabelled(prepared: Prepared) -> Prepared:
    return replace(prepared, side=replace(prepared.side, labels=None, class_names=[]))


def _cluster(prepared: Prepared, other: Prepared, name: str, params: Params, seed: int) -> Prepared:
    if prepared.side.labels is not None:
        return prepared
    if params.unlabelled == "error":
        raise MethodError(f"{name}: has no labels; send them, or set unlabelled to cluster or label_distance to none")
    from sklearn.cluster import KMeans

    count = CLUSTERS if other.side.labels is None else len(np.unique(other.side.labels))
    points = prepared.side.points
    count = min(count, len(np.unique(points, axis=0)))
    found = KMeans(count, n_init=3, random_state=seed).fit_predict(points, sample_weight=prepared.side.weights)
    names = [f"cluster {position}" for position in range(count)]
    side = replace(prepared.side, labels=found.astype(np.int64), class_names=names)
    return replace(prepared, side=side, clustered=True)


def _filter(prepared: Prepared, name: str, params: Params) -> Prepared:
    labels = prepared.side.labels
    assert labels is not None
    counts = np.bincount(labels)
    kept = np.flatnonzero(counts >= params.min_label_count)
    if not len(kept):
        raise MethodError(
            f"{name}: no class has min_label_count = {params.min_label_count} of the {len(labels)} samples compared"
        )
    names = prepared.side.class_names or [str(label) for label in range(len(counts))]
    dropped = [
        {"side": name, "class": names[label], "samples": int(counts[label])}
        for label in np.flatnonzero((counts > 0) & (counts < params.min_label_count))
    ]
    position = np.full(len(counts), -1)
    position[kept] = np.arange(len(kept))
    inside = np.flatnonzero(position[labels] >= 0)
    side = _select(prepared.side, inside)
    side = replace(side, labels=position[labels[inside]], class_names=[names[label] for label in kept])
    return replace(prepared, side=side, rows=prepared.rows[inside], dropped=dropped)


def _select(side: Side, rows: Int64) -> Side:
    weights = None if side.weights is None else side.weights[rows] / side.weights[rows].sum()
    labels = None if side.labels is None else side.labels[rows]
    return replace(side, points=np.ascontiguousarray(side.points[rows]), weights=weights, labels=labels)
