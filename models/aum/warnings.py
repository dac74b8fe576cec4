"""What a reader of a ranking must know before acting on it, in plain sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from models.aum.folds import FoldRuns
from models.aum.ranking import Ranking
from models.aum.schema import MislabeledDetection
from models.aum.thresholds import threshold_count
from models.core.inputs import Int64

_FEW_SAMPLES, _FEW_OF_CLASS, _FEW_THRESHOLDS = 2000, 100, 100
_MEMORISED = 0.6
_MANY_CLASSES, _ENOUGH_SUSPECTS, _MOST = 4, 20, 0.6


def collect_warnings(
    result: Mapping[str, Any],
    runs: FoldRuns,
    ranking: Ranking,
    labels: Int64,
    class_names: list[str],
    spared: Int64,
    parameters: MislabeledDetection,
) -> list[str]:
    """All warnings that apply to this run.

    Args:
        result: has ``samples``, ``threshold_samples``, ``flagged``, ``noise_rate``, ``per_class``, ``confusion``,
            ``duplicates``.
        spared: suspects of each class that the cleaned set keeps to reach the minimum of a class.
    """
    return [
        *_about_size(result, labels, class_names),
        *_about_thresholds(result, runs, ranking, class_names, parameters),
        *_about_flags(result, class_names, spared),
    ]


def _about_size(result: Mapping[str, Any], labels: Int64, class_names: list[str]) -> list[str]:
    found = []
    if result["samples"] < _FEW_SAMPLES:
        found.append(
            f"Only {result['samples']} samples: below about {_FEW_SAMPLES:,} the ranking is rough; "
            "confident learning on out-of-fold probabilities may serve better."
        )
    counts = np.bincount(labels, minlength=len(class_names))
    rare = [class_names[index] for index in np.flatnonzero((counts > 0) & (counts < _FEW_OF_CLASS))]
    if rare:
        found.append(
            f"{len(rare)} classes have fewer than {_FEW_OF_CLASS} samples ({_some(rare)}): rare classes score low "
            "because they are seldom seen, so their suspects need a closer look."
        )
    return found


def _about_thresholds(
    result: Mapping[str, Any],
    runs: FoldRuns,
    ranking: Ranking,
    class_names: list[str],
    parameters: MislabeledDetection,
) -> list[str]:
    found = []
    count, samples = result["threshold_samples"], result["samples"]
    if count < _FEW_THRESHOLDS:
        found.append(
            f"Only {count} threshold samples a fold: the cut is nearly their maximum and uncertain "
            "(see threshold_intervals)."
        )
    if parameters.threshold_samples == "auto" and count == threshold_count(samples, len(class_names)) < samples // (
        len(class_names) + 1
    ):
        found.append(
            f"With {len(class_names)} classes the usual number of threshold samples would relabel "
            f"{samples // (len(class_names) + 1)} samples; {count} (10%) were taken."
        )
    unjudged = int((ranking.eligible == 0).sum())
    if unjudged:
        found.append(
            f"{unjudged} samples served as threshold samples in every fold and could not be judged; use folds of 2 "
            "or more."
        )
    learned = max(runs.threshold_accuracy)
    if learned > _MEMORISED:
        found.append(
            f"The network memorised {learned:.0%} of the threshold samples' meaningless labels: it learned for too "
            "long to tell wrong labels from right ones; use fewer epochs."
        )
    return found


def _about_flags(result: Mapping[str, Any], class_names: list[str], spared: Int64) -> list[str]:
    found = []
    losing = [row["class"] for row in result["per_class"] if row["share"] > 0.5]
    if losing:
        found.append(
            f"More than half of the samples are suspects in {len(losing)} classes ({_some(losing)}): check whether "
            "these classes are hard, rare or mixed up systematically before dropping anything."
        )
    mixed = _mixed_up(result["confusion"], result["per_class"])
    if mixed:
        found.append(
            f"The suspects of {len(mixed)} classes are mostly suggested as one other class ({_some(mixed)}). Where "
            "that is a systematic mix-up, the noise estimate is too low and many right labels are among the suspects."
        )
    share, estimate = result["flagged"]["share"], result["noise_rate"]["estimate"]
    if share - estimate > max(0.05, 0.5 * estimate):
        found.append(
            f"{share:.0%} of the samples are suspects, but only about {estimate:.0%} of the labels are estimated to be "
            "wrong: many suspects are hard but right. Review from the top of the ranking."
        )
    kept = [class_names[index] for index in np.flatnonzero(spared)]
    if kept:
        found.append(
            f"{int(spared.sum())} suspects stay in the cleaned data set because their classes would become too small "
            f"({_some(kept)})."
        )
    conflicts = result["duplicates"]["conflicting_groups"]
    if conflicts:
        found.append(f"{conflicts} groups of identical samples carry contradicting labels.")
    return found


def _mixed_up(confusion: list[Mapping[str, Any]], per_class: list[Mapping[str, Any]]) -> list[str]:
    """Classes of which most suspects, and enough of them, carry one suggestion; with few classes that means nothing."""
    if len(per_class) < _MANY_CLASSES:
        return []
    flagged = {row["class"]: row["flagged"] for row in per_class}
    return [
        f"{row['assigned']} as {row['suggested']}"
        for row in confusion
        if flagged[row["assigned"]] >= _ENOUGH_SUSPECTS and row["count"] > _MOST * flagged[row["assigned"]]
    ]


def _some(names: list[str], limit: int = 5) -> str:
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")
