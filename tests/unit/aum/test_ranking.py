import numpy as np
import pytest

from models.aum.folds import FoldRuns
from models.aum.ranking import class_table, confusion_table, kept_samples, rank_samples, suggest_labels

NAMES = ["ant", "bee", "cow"]


def runs(aum, sets, logits):
    aum = np.asarray(aum, dtype=float)
    return FoldRuns([np.array(s) for s in sets], aum, aum.astype(np.float32), np.asarray(logits, np.float32), None)


def test_suggested_label_is_the_best_other_class():
    suggested, share = suggest_labels(np.array([[5, 1, 3], [1, 2, 0], [np.nan] * 3], np.float32), np.array([0, 1, 2]))
    assert suggested.tolist() == [2, 0, -1]
    assert share[0] == pytest.approx(np.exp(3) / np.exp([5, 1, 3]).sum())
    assert np.isnan(share[2])


def test_ranking_is_ascending_with_ties_by_position_and_unjudged_last():
    labels = np.zeros(6, dtype=np.int64)
    made = runs([[2.0, -1.0, 0.0, -1.0, 9.0, -5.0]], [[4, 5]], [[0, 1, 2]] * 4 + [[np.nan] * 3] * 2)
    ranking = rank_samples(made, labels, 50, "all")
    assert ranking.order.tolist() == [1, 3, 2, 0, 4, 5]
    assert ranking.rank.tolist() == [4, 1, 3, 2, 5, 6]
    assert ranking.thresholds == [-5.0]
    assert np.isnan(ranking.aum[4:]).all() and not ranking.suspect.any()
    assert ranking.suggested.tolist() == [2, 2, 2, 2, -1, -1]


def test_scores_average_over_the_folds_that_may_judge():
    made = runs([[1.0, 2.0, 7.0, 8.0], [3.0, 4.0, 5.0, 6.0]], [[0], [1]], np.zeros((4, 3)))
    ranking = rank_samples(made, np.zeros(4, dtype=np.int64), 99, "all")
    assert ranking.aum.tolist() == [3.0, 2.0, 6.0, 7.0]
    assert ranking.eligible.tolist() == [1, 1, 2, 2]
    assert ranking.threshold_percentile.tolist() == [0.0, 1.0, 1.0, 1.0]


def flagged_ranking():
    """Samples 0..5 lie below the threshold samples 6 and 7, samples 8..11 above."""
    aum = [[-6.0, -5.0, -4.0, -3.0, -2.0, -1.5, 0.0, 0.5, 2.0, 3.0, 4.0, 5.0], [0.0] * 12]
    aum[1] = [*aum[0][:6], 9.0, 9.0, 0.0, 0.5, 4.0, 5.0]
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 2, 2])
    logits = np.tile([1.0, 2.0, 3.0], (12, 1))
    return rank_samples(runs(aum, [[6, 7], [8, 9]], logits), labels, 99, "all"), labels


def test_cleaned_set_spares_the_best_suspects_of_a_small_class():
    ranking, labels = flagged_ranking()
    assert np.flatnonzero(ranking.suspect).tolist() == [0, 1, 2, 3, 4, 5]
    kept, spared = kept_samples(ranking, labels, 3, keep_per_class=0)
    assert (np.flatnonzero(~kept).tolist(), spared.tolist()) == ([0, 1, 2, 3, 4, 5], [0, 0, 0])
    kept, spared = kept_samples(ranking, labels, 3, keep_per_class=2)
    assert (np.flatnonzero(~kept).tolist(), spared.tolist()) == ([0, 1, 4, 5], [2, 0, 0])
    kept, _ = kept_samples(ranking, labels, 3, keep_per_class=100)
    assert kept.all()


def test_tables():
    ranking, labels = flagged_ranking()
    rows = class_table(ranking, labels, NAMES)
    assert [(r["class"], r["count"], r["flagged"], r["share"]) for r in rows] == [
        ("ant", 4, 4, 1.0),
        ("bee", 6, 2, pytest.approx(1 / 3)),
        ("cow", 2, 0, 0.0),
    ]
    assert rows[0]["mean_aum"] == -4.5
    assert confusion_table(ranking, labels, NAMES) == [
        {"assigned": "ant", "suggested": "cow", "count": 4},
        {"assigned": "bee", "suggested": "cow", "count": 2},
    ]
