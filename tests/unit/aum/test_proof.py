"""The proof's own parts: scores, the mixture baseline, a small cell, and what its rows are said to show."""

import numpy as np
import pytest

from models.aum.cells import Cell, cells_of
from models.aum.findings import summarise
from models.aum.proof import measure_cells
from models.aum.scores import flag_scores, mixture, ranking_scores
from models.core.run import LocalRun


def test_scores_of_a_ranking_and_of_flags():
    wrong = np.array([True, True, False, False, False])
    perfect = ranking_scores("a", np.array([5.0, 4, 3, 2, 1]), wrong)
    assert perfect == {"auroc_a": 1.0, "ap_a": 1.0, "f1_k_a": 1.0}
    one_late = ranking_scores("a", np.array([5.0, 3, 4, 2, 1]), wrong)
    assert one_late == {"auroc_a": pytest.approx(5 / 6), "ap_a": pytest.approx((1 + 2 / 3) / 2), "f1_k_a": 0.5}
    flags = flag_scores("a", np.array([True, False, True, True, False]), wrong)
    assert flags == {"flagged_a": 0.6, "precision_a": pytest.approx(1 / 3), "recall_a": 0.5, "f1_a": 0.4}
    none = np.zeros(5, dtype=bool)
    assert ranking_scores("a", np.arange(5.0), none) == {}
    assert flag_scores("a", wrong, none) == {"flagged_a": 0.4}


def test_the_mixture_finds_the_share_of_the_upper_component_and_never_flags_below_it():
    generator = np.random.default_rng(0)
    score = np.concatenate([generator.normal(-3, 1, 1600), generator.normal(3, 0.5, 400)])
    share, flagged = mixture(score)
    assert share == pytest.approx(0.2, abs=0.01) and flagged.mean() == pytest.approx(0.2, abs=0.01)
    wide = np.concatenate([generator.normal(0, 0.3, 1600), generator.normal(1, 3, 400)])
    flagged = mixture(wide)[1]
    assert flagged[wide > 3].all() and not flagged[wide < -1].any()


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    reports = []
    run = LocalRun(tmp_path_factory.mktemp("proof"), report=lambda fraction, *_: reports.append(fraction))
    found = measure_cells([Cell("digits", 400, "uniform", 0.2, 0), Cell("digits", 400, "none", 0.0, 0)], run)
    assert reports == sorted(reports) and reports[-1] == pytest.approx(1.0)
    return found


def test_a_cell_is_measured_with_every_baseline(rows):
    noisy, clean = rows
    assert noisy["true_share"] == pytest.approx(0.2, abs=0.05) and clean["true_share"] == 0
    rankings = ("aum", "probability", "loss", "loss_early", "confident")
    assert all(0.5 < noisy[f"auroc_{name}"] <= 1 and f"auroc_{name}" not in clean for name in rankings)
    assert noisy["auroc_aum"] > 0.85
    assert {"f1_aum", "f1_mixture", "f1_confident", "accuracy_oracle"} <= noisy.keys()
    assert noisy["accuracy_oracle"] > noisy["accuracy_random"] and "accuracy_oracle" not in clean
    assert noisy["low"] <= noisy["estimate"] <= noisy["high"] == noisy["flagged_aum"]


def test_what_misses_a_target_is_said(rows):
    figures = summarise(rows)
    assert len(figures.tables["proof"]) == 2
    assert any(figure.name == "noise rate" and figure.subject == "truth" for figure in figures.figures)
    assert not any("digits, uniform 20%, N=400: cleaning" in claim for claim in summarise([made(rows, 0.05)]).claims)
    short = summarise([made(rows, 0.03)]).claims
    assert "Falls short. digits, uniform 20%, N=400: cleaning gains 3.0 points of accuracy, less than 4." in short
    assert any("the estimated noise is 0.300, the true one 0.200" in claim for claim in short)
    assert any("uniform noise: within 0.06 in 0 of 1 cells, inside in 1" in claim for claim in short)


def made(rows, gain):
    changes = {"accuracy_all": 0.7, "accuracy_aum": 0.7 + gain, "estimate": 0.3, "true_share": 0.2}
    return {**rows[0], **changes, "low": 0.1, "high": 0.35}


def test_a_setting_that_was_not_retrained_says_nothing_of_accuracy(rows):
    arms = ("aum", "confident", "random", "oracle")
    only = {key: value for key, value in rows[0].items() if key not in [f"accuracy_{arm}" for arm in arms]}
    figures = summarise([only])
    assert "Accuracy" not in figures.claims[0] and not any("cleaning gains" in claim for claim in figures.claims)
    assert [f.subject for f in figures.figures if f.name == "accuracy after retraining"] == ["all samples"]


def test_cells_of_one_size_are_all_noises_and_seeds():
    cells = cells_of("digits", 400, [0, 1])
    assert len(cells) == len(set(cells)) == 16
    assert cells[0].setting == "digits, no added noise, N=400" and cells[-1].setting == "digits, flip 40%, N=400"
