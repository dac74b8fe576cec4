"""Each warning appears when its cause is there, and none on a sound run."""

import numpy as np
import pytest

from models.aum.folds import FoldRuns
from models.aum.ranking import rank_samples
from models.aum.schema import MislabeledDetection
from models.aum.warnings import collect_warnings

NAMES = ["ant", "bee", "cow", "doe"]
SAMPLES = 4000
CONFUSION = [{"assigned": a, "suggested": b, "count": 10} for a in NAMES for b in NAMES if a != b]


def warnings_of(*, last=-1.0, spared=(0, 0, 0, 0), samples=SAMPLES, rare=0, threshold_samples=400, folds=2, **changes):
    labels = np.arange(samples) % 4
    labels[: samples - 4 * rare if rare else 0] = 0
    order = np.random.default_rng(0).permutation(samples)
    count = min(threshold_samples, samples // 10)
    sets = [np.sort(order[fold * count : (fold + 1) * count]) for fold in range(folds)]
    aum = np.tile(np.linspace(-5, 5, samples), (folds, 1))
    runs = FoldRuns(sets, aum, np.full((folds, samples), last, np.float32), np.zeros((samples, 4), np.float32), None)
    result = {
        "samples": samples,
        "threshold_samples": threshold_samples,
        "flagged": {"count": 120, "share": 0.03},
        "noise_rate": {"estimate": 0.02, "low": 0.01, "high": 0.03},
        "per_class": [{"class": name, "count": 1000, "flagged": 30, "share": 0.03} for name in NAMES],
        "confusion": CONFUSION,
        "duplicates": {"conflicting_groups": 0},
    } | changes
    ranking = rank_samples(runs, labels, 99, "all")
    parameters = MislabeledDetection(threshold_samples=threshold_samples, folds=folds)
    return collect_warnings(result, runs, ranking, labels, NAMES, np.array(spared), parameters)


def test_a_sound_run_has_none():
    assert warnings_of() == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"samples": 1500, "threshold_samples": 150}, "Only 1500 samples"),
        ({"rare": 40}, "3 classes have fewer than 100 samples (bee, cow, doe)"),
        ({"threshold_samples": 60}, "Only 60 threshold samples a fold"),
        ({"folds": 1}, "400 samples served as threshold samples in every fold"),
        ({"last": 1.0}, "memorised 100% of the threshold samples"),
        ({"spared": (0, 7, 0, 0)}, "7 suspects stay in the cleaned data set"),
        ({"duplicates": {"conflicting_groups": 3}}, "3 groups of identical samples carry contradicting labels"),
        ({"flagged": {"count": 600, "share": 0.15}}, "15% of the samples are suspects, but only about 2%"),
        (
            {"per_class": [{"class": "ant", "count": 100, "flagged": 60, "share": 0.6}]},
            "More than half of the samples are suspects in 1 classes (ant)",
        ),
        (
            {"confusion": [{"assigned": "ant", "suggested": "bee", "count": 25}]},
            "The suspects of 1 classes are mostly suggested as one other class (ant as bee)",
        ),
    ],
)
def test_each_cause_is_named(change, words):
    found = warnings_of(**change)
    assert len(found) == 1 and words in found[0]
