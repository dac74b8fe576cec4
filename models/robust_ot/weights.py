"""What the weights of a side say: its outliers, and which classes lose mass."""

from __future__ import annotations

from typing import Any

import numpy as np

from models.core.inputs import Float64
from models.core.outputs import Side
from models.robust_ot.bounds import implied_fraction

LOST_MASS = 0.3
MAX_LISTED = 1000


def outliers(weights: Float64, a: Float64, rho: float) -> list[dict[str, float | int]]:
    """The samples that a ball of radius ``rho`` would drop first: lowest weight first, below one, at most 1000.

    As many as hold the share of mass that the radius can remove, ``2 rho / (1 + 2 rho)``.
    """
    if rho <= 0.0:
        return []
    order = np.argsort(weights, kind="stable")
    before = np.cumsum(a[order]) - a[order]
    listed = order[(before < implied_fraction(rho) - 1e-12) & (weights[order] < 1.0)][:MAX_LISTED]
    return [{"index": int(i), "weight": float(weights[i])} for i in listed]


def class_weights(side: Side, weights: Float64, a: Float64) -> list[dict[str, Any]]:
    """For each class of a labelled side, its share of the mass before and after reweighting, and their ratio."""
    if side.labels is None:
        return []
    count = int(side.labels.max()) + 1
    before = np.bincount(side.labels, a, minlength=count)
    after = np.bincount(side.labels, a * weights, minlength=count)
    return [
        {
            "label": side.class_names[c] if c < len(side.class_names) else str(c),
            "mass": float(before[c]),
            "mass_after": float(after[c]),
            "weight": float(after[c] / before[c]),
        }
        for c in range(count)
        if before[c] > 0.0
    ]


def lost_classes(classes: list[dict[str, Any]], name: str) -> list[str]:
    """A warning for each class that loses more than 30% of its mass."""
    return [
        f"{name}: class {entry['label']!r} loses {1.0 - entry['weight']:.0%} of its mass. It may hold the outliers, "
        "or be a rare class that the other side lacks; look before trusting the distance"
        for entry in classes
        if entry["weight"] < 1.0 - LOST_MASS
    ]
