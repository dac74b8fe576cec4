"""Threshold samples, the official flag rule, votes and the noise rate."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.aum import thresholds as t

HUNDRED = np.arange(100.0)


@pytest.mark.parametrize(("aum", "flagged"), [(97.5, True), (98.0, False), (98.5, False), (99.0, False)])
def test_official_rule_flags_when_more_than_one_percent_are_greater(aum, flagged):
    assert (aum < t.cut(HUNDRED, 99)) is flagged
    assert np.percentile(HUNDRED, 99) == pytest.approx(98.01)  # a linear percentile would flag 98.0 too


@given(
    st.lists(st.integers(-20, 20), min_size=1, max_size=300),
    st.integers(-21, 21),
    st.sampled_from([50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 100.0]),
)
def test_the_cut_is_the_official_rule_for_any_percentile(threshold_aum, aum, percentile):
    values = np.array(threshold_aum, dtype=float)
    greater = int((values > aum).sum())
    # In integers: half-percent percentiles are exact in units of 0.5%.
    official = greater * 200 > round((100 - percentile) * 2) * len(values)
    assert (aum < t.cut(values, percentile)) is official


def test_threshold_count_is_the_papers_and_at_most_a_tenth():
    assert t.threshold_count(45_000, 10) == 4090
    assert t.threshold_count(45_000, 100) == 445
    assert t.threshold_count(10_000, 10) == 909
    assert t.threshold_count(1000, 2) == 100


@given(st.integers(50, 400), st.integers(2, 5), st.integers(0, 5))
def test_sets_are_disjoint_and_every_sample_is_judged(samples, folds, seed):
    count = t.threshold_count(samples, 4)
    sets = t.draw_threshold_sets(samples, count, folds, seed)
    assert [len(chosen) for chosen in sets] == [count] * folds
    assert len(np.unique(np.concatenate(sets))) == count * folds
    _, eligible = t.flag_votes(np.zeros((folds, samples)), sets, 99)
    assert eligible.min() >= 1
    assert eligible.sum() == folds * samples - count * folds


def test_sets_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="3 disjoint sets of 40 threshold samples do not fit into 100"):
        t.draw_threshold_sets(100, 40, 3, 0)


def test_votes():
    bad, eligible = np.array([2, 1, 1, 0, 0]), np.array([2, 2, 1, 1, 0])
    keep = [math.ceil(1 - b / e) for b, e in zip(bad[:4], eligible[:4], strict=True)]
    assert keep == [0, 1, 0, 1]
    assert t.decide(bad, eligible, "all").tolist() == [True, False, True, False, False]
    assert t.decide(bad, eligible, "any").tolist() == [True, True, True, False, False]
    three = np.array([3, 3])
    assert t.decide(np.array([2, 1]), three, "majority").tolist() == [True, False]


def test_a_fold_never_judges_its_own_threshold_samples():
    aum = np.array([[-9.0, -5.0, 3.0, 4.0], [-9.0, -5.0, 3.0, 4.0]])
    sets = [np.array([0]), np.array([1])]
    bad, eligible = t.flag_votes(aum, sets, 99)
    # Fold 1 cuts at -9, fold 2 at -5: only sample 0 lies below, in fold 2.
    assert (bad.tolist(), eligible.tolist()) == ([1, 0, 0, 0], [1, 1, 2, 2])
    assert t.mean_over_eligible(np.array([[1.0, 2.0], [3.0, 4.0]]), [np.array([0]), np.array([0])])[1] == 3.0
    assert np.isnan(t.mean_over_eligible(np.array([[1.0, 2.0]]), [np.array([0])])[0])


def test_noise_rate_brackets_the_known_share():
    generator = np.random.default_rng(0)
    wrong = np.arange(5000) < 1000
    aum = np.where(wrong, generator.normal(-2, 1, 5000), generator.normal(4, 1, 5000))[None]
    chosen = generator.permutation(5000)[:450]
    aum[0, chosen] = generator.normal(-1, 1, 450)
    rate = t.noise_rate(aum, [chosen], "all")
    assert rate["low"] <= rate["estimate"] <= rate["high"]
    assert abs(float(rate["estimate"]) - 0.2 * 4550 / 5000) < 0.03
    assert rate["method"] == "threshold-percentile"


def test_bootstrap_interval_holds_the_cut_and_narrows_with_size():
    generator = np.random.default_rng(0)
    widths = []
    for size in (50, 5000):
        values = generator.normal(size=size)
        low, high = t.cut_interval(values, 95, seed=1)
        assert low <= t.cut(values, 95) <= high
        widths.append(high - low)
    assert widths[1] < widths[0] / 3


def test_share_below_counts_ties_as_no_better():
    assert t.share_below(np.array([-1.0, 49.0, 99.0]), HUNDRED).tolist() == [0.0, 0.5, 1.0]
