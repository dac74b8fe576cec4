"""Threshold samples, the cut they give, votes over folds and the noise rate. NumPy only.

Pleiss et al., NeurIPS 2020, section 3.2. Threshold samples get a label of their own, so they are certainly
mislabeled: a sample whose AUM is no better than theirs is suspect.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from models.core.inputs import Float64, Int64

Vote = Literal["all", "any", "majority"]
_SLACK = 1e-9  # absorbs rounding of percentiles that are not binary fractions
ESTIMATE, LOW, HIGH = 90.0, 75.0, 99.0


def threshold_count(samples: int, classes: int) -> int:
    """Size of one fold's threshold set: ``N // (c + 1)`` as in the paper, but never more than a tenth of ``N``.

    With few classes the paper's rule would relabel up to a third of the data.
    """
    return max(1, min(samples // (classes + 1), samples // 10))


def draw_threshold_sets(samples: int, count: int, folds: int, seed: int) -> list[Int64]:
    """``folds`` disjoint sets of ``count`` positions, sorted: consecutive slices of one permutation.

    Raises:
        ValueError: ``folds * count`` exceeds ``samples``.
    """
    if folds * count > samples:
        raise ValueError(f"{folds} disjoint sets of {count} threshold samples do not fit into {samples} samples")
    order = np.random.default_rng(seed).permutation(samples)
    return [np.sort(order[fold * count : (fold + 1) * count]) for fold in range(folds)]


def cut(threshold_aum: Float64, percentile: float) -> float:
    """The cut alpha: a sample is flagged when its AUM is strictly below it.

    The official rule flags when the share of threshold samples with strictly greater AUM exceeds
    ``1 - percentile / 100``; that is the same as lying below the ``(k + 1)``-th largest threshold AUM with
    ``k = floor((1 - percentile / 100) n)``, without interpolation.
    """
    ordered = np.sort(threshold_aum)
    allowed = math.floor((100.0 - percentile) * len(ordered) / 100.0 + _SLACK)
    return float(ordered[max(len(ordered) - 1 - allowed, 0)])


def cut_interval(threshold_aum: Float64, percentile: float, seed: int, resamples: int = 200) -> tuple[float, float]:
    """95% bootstrap interval of :func:`cut`."""
    generator = np.random.default_rng(seed)
    drawn = threshold_aum[generator.integers(0, len(threshold_aum), (resamples, len(threshold_aum)))]
    cuts = [cut(row, percentile) for row in drawn]
    low, high = np.percentile(cuts, [2.5, 97.5])
    return float(low), float(high)


def flag_votes(aum: Float64, sets: list[Int64], percentile: float) -> tuple[Int64, Int64]:
    """In how many folds each sample is flagged, and in how many it could be.

    Args:
        aum: ``(R, N)``, one row a fold.
        sets: each fold's threshold samples, which that fold does not judge.

    Returns:
        ``(bad, eligible)``, int64 ``(N,)`` each.
    """
    bad, eligible = np.zeros(aum.shape[1], dtype=np.int64), np.full(aum.shape[1], len(sets), dtype=np.int64)
    for row, chosen in zip(aum, sets, strict=True):
        below = row < cut(row[chosen], percentile)
        below[chosen] = False
        bad += below
        eligible[chosen] -= 1
    return bad, eligible


def decide(bad: Int64, eligible: Int64, vote: Vote) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Which samples are suspect, bool ``(N,)``.

    ``all`` is the official rule, keep = ceil(1 - bad / eligible). Samples that no fold could judge are not suspect.
    """
    needed = {"all": eligible, "any": np.ones_like(eligible), "majority": eligible // 2 + 1}[vote]
    return np.asarray((eligible > 0) & (bad >= needed))


def mean_over_eligible(values: Float64, sets: list[Int64]) -> Float64:
    """Mean of ``values`` ``(R, N)`` over the folds in which a sample was no threshold sample; NaN where none."""
    masked = values.astype(np.float64)
    for row, chosen in zip(masked, sets, strict=True):
        row[chosen] = np.nan
    counts = (~np.isnan(masked)).sum(axis=0)
    return np.asarray(np.where(counts > 0, np.nansum(masked, axis=0) / np.maximum(counts, 1), np.nan))


def share_below(aum: Float64, threshold_aum: Float64) -> Float64:
    """Share of threshold samples whose AUM does not exceed a sample's, ``(N,)``: comparable between runs."""
    return np.searchsorted(np.sort(threshold_aum), aum, side="right") / len(threshold_aum)


def noise_rate(aum: Float64, sets: list[Int64], vote: Vote) -> dict[str, float | str]:
    """Estimated share of wrong labels: the share that is suspect at the 90th percentile; low and high at 75 and 99.

    The published rule (99) aims at recall and also flags hard but right samples; on data with known noise the
    90th percentile came closest to the truth.
    """
    shares = {q: float(decide(*flag_votes(aum, sets, q), vote).mean()) for q in (LOW, ESTIMATE, HIGH)}
    return {
        "estimate": shares[ESTIMATE],
        "low": shares[LOW],
        "high": shares[HIGH],
        "method": "threshold-percentile",
    }
