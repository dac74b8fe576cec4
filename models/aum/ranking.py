"""From margins to a ranking: suspects, suggested labels and what is kept. NumPy only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from models.aum.folds import FoldRuns
from models.aum.thresholds import Vote, cut, decide, flag_votes, mean_over_eligible, share_below
from models.core.inputs import Float32, Float64, Int64

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Ranking:
    """Every sample judged; all arrays are ``(N,)`` in the data set's order.

    Attributes:
        order: positions, lowest AUM first, ties by position; samples that no fold could judge come last.
        rank: place in ``order``, from 1.
        aum: mean over the folds in which the sample was no threshold sample, NaN where there is none.
        threshold_percentile: share of threshold samples (of those folds) with no greater AUM.
        votes: folds that flagged the sample, of ``eligible``.
        suggested: the most likely other class by mean logits, -1 where unknown.
        suggested_share: softmax of the mean logits at the suggested class.
        thresholds: the cut of each fold.
    """

    order: Int64
    rank: Int64
    aum: Float64
    threshold_percentile: Float64
    suspect: Bools
    votes: Int64
    eligible: Int64
    suggested: Int64
    suggested_share: Float32
    final_margin: Float64
    thresholds: list[float]


def rank_samples(runs: FoldRuns, labels: Int64, percentile: float, vote: Vote) -> Ranking:
    """Judge every sample by the folds' margins; see :class:`Ranking`."""
    aum = mean_over_eligible(runs.aum, runs.sets)
    votes, eligible = flag_votes(runs.aum, runs.sets, percentile)
    order = np.argsort(aum, kind="stable")
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(1, len(order) + 1)
    percentiles = np.stack([share_below(row, row[chosen]) for row, chosen in zip(runs.aum, runs.sets, strict=True)])
    suggested, share = suggest_labels(runs.mean_logits, labels)
    return Ranking(
        order=order,
        rank=rank,
        aum=aum,
        threshold_percentile=mean_over_eligible(percentiles, runs.sets),
        suspect=decide(votes, eligible, vote),
        votes=votes,
        eligible=eligible,
        suggested=suggested,
        suggested_share=share,
        final_margin=mean_over_eligible(runs.last.astype(np.float64), runs.sets),
        thresholds=[cut(row[chosen], percentile) for row, chosen in zip(runs.aum, runs.sets, strict=True)],
    )


def suggest_labels(mean_logits: Float32, labels: Int64) -> tuple[Int64, Float32]:
    """The best class other than the assigned one, and its softmax share.

    Args:
        mean_logits: ``(N, c)`` without the threshold class; rows of NaN are unknown.

    Returns:
        int64 ``(N,)`` (-1 where unknown) and float32 ``(N,)`` (NaN there).
    """
    known = np.isfinite(mean_logits[:, 0])
    logits = np.where(known[:, None], mean_logits, 0.0)
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares = exponentials / exponentials.sum(axis=1, keepdims=True)
    rows = np.arange(len(labels))
    logits[rows, labels] = -np.inf
    best = logits.argmax(axis=1)
    return np.where(known, best, -1), np.where(known, shares[rows, best], np.nan).astype(np.float32)


def kept_samples(ranking: Ranking, labels: Int64, classes: int, keep_per_class: int) -> tuple[Bools, Int64]:
    """Which samples the cleaned data set keeps, and how many suspects of each class stay to reach the minimum.

    A class that would fall below ``keep_per_class`` keeps its suspects with the highest AUM.
    """
    kept = np.ones(len(labels), dtype=bool)
    kept[ranking.suspect] = False
    spared = np.maximum(np.minimum(keep_per_class, np.bincount(labels, minlength=classes)), 0)
    spared = np.maximum(spared - np.bincount(labels[kept], minlength=classes), 0)
    for index in np.flatnonzero(spared):
        suspects = ranking.order[(labels[ranking.order] == index) & ranking.suspect[ranking.order]]
        kept[suspects[-spared[index] :]] = True
    return kept, spared


def class_table(ranking: Ranking, labels: Int64, class_names: list[str]) -> list[dict[str, Any]]:
    """``class``, ``count``, ``flagged``, ``share`` and ``mean_aum`` of each class that has samples."""
    counts = np.bincount(labels, minlength=len(class_names))
    flagged = np.bincount(labels[ranking.suspect], minlength=len(class_names))
    judged = ranking.eligible > 0
    sums = np.bincount(labels[judged], weights=ranking.aum[judged], minlength=len(class_names))
    judged_counts = np.bincount(labels[judged], minlength=len(class_names))
    return [
        {
            "class": class_names[index],
            "count": int(counts[index]),
            "flagged": int(flagged[index]),
            "share": float(flagged[index] / counts[index]),
            "mean_aum": float(sums[index] / judged_counts[index]) if judged_counts[index] else None,
        }
        for index in np.flatnonzero(counts)
    ]


def confusion_table(ranking: Ranking, labels: Int64, class_names: list[str]) -> list[dict[str, Any]]:
    """Assigned and suggested class of the suspects with their counts, most frequent first."""
    suspects = np.flatnonzero(ranking.suspect & (ranking.suggested >= 0))
    pairs, counts = np.unique(labels[suspects] * len(class_names) + ranking.suggested[suspects], return_counts=True)
    return [
        {
            "assigned": class_names[pairs[i] // len(class_names)],
            "suggested": class_names[pairs[i] % len(class_names)],
            "count": int(counts[i]),
        }
        for i in np.argsort(-counts, kind="stable")
    ]
