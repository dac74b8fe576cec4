"""Point clouds with known outliers: the data of the proofs."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from models.core.inputs import Float64

Junk = Literal["fashion", "noise"]


class Polluted(NamedTuple):
    """Points ``(n, d)`` of which those marked in ``outlier`` ``(n,)`` were replaced."""

    points: Float64
    outlier: npt.NDArray[np.bool_]


def pollute(clean: Float64, junk: Float64 | None, share: float, rng: np.random.Generator) -> Polluted:
    """Replace a ``share`` of the points, drawn at random, by ``junk`` points or (None) by uniform noise in their range.

    Args:
        clean: float64 ``(n, d)``.
        junk: float64 ``(k, d)``, ``k >= share n``; drawn from without repetition.
    """
    count = round(share * len(clean))
    outlier = np.zeros(len(clean), dtype=bool)
    outlier[rng.choice(len(clean), count, replace=False)] = True
    points = clean.copy()
    if junk is None:
        points[outlier] = rng.uniform(clean.min(), clean.max(), (count, clean.shape[1]))
    else:
        points[outlier] = junk[rng.choice(len(junk), count, replace=False)]
    return Polluted(points, outlier)


def area_under_roc(score: Float64, outlier: npt.NDArray[np.bool_]) -> float:
    """Probability that an outlier's score exceeds an inlier's, ties counted half."""
    from scipy.stats import rankdata

    ranks = rankdata(score)
    positive = int(outlier.sum())
    negative = len(outlier) - positive
    return float((ranks[outlier].sum() - positive * (positive + 1) / 2) / (positive * negative))
