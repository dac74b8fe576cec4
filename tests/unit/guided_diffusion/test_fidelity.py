"""Frechet distance, inception score, precision and recall on sets whose answer is known."""

import numpy as np
import pytest

from models.guided_diffusion.fidelity import frechet_distance, inception_score, precision_recall


@pytest.fixture
def rows():
    return np.random.default_rng(0).normal(size=(300, 8))


def test_a_set_is_at_no_distance_from_itself(rows):
    assert frechet_distance(rows, rows) == pytest.approx(0, abs=1e-6)
    assert precision_recall(rows, rows) == (1.0, 1.0)


def test_a_shift_adds_its_square(rows):
    other = np.random.default_rng(1).normal(size=(300, 8))
    other -= other.mean(axis=0) - rows.mean(axis=0)
    shift = np.linspace(0, 2, 8)
    moved = frechet_distance(rows, other + shift) - frechet_distance(rows, other)
    assert moved == pytest.approx(float(shift @ shift), rel=1e-6)


def test_frechet_distance_of_scaled_coordinates(rows):
    white = (rows - rows.mean(axis=0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(rows, rowvar=False))).T
    assert frechet_distance(white, 3 * white) == pytest.approx(8 * (3 - 1) ** 2, rel=1e-6)


def test_a_narrow_set_is_precise_and_a_wide_one_recalls(rows):
    precision, recall = precision_recall(rows, 0.2 * rows)
    assert precision > 0.9 > recall
    assert precision_recall(0.2 * rows, rows) == (recall, precision)


def test_inception_score_counts_classes():
    assert inception_score(np.eye(10, dtype=np.float32)) == pytest.approx(10)
    assert inception_score(np.full((7, 10), 0.1, dtype=np.float32)) == pytest.approx(1)


def test_too_few_rows_are_refused(rows):
    with pytest.raises(ValueError, match="more than 3"):
        precision_recall(rows[:3], rows)
    with pytest.raises(ValueError, match="two rows"):
        frechet_distance(rows[:1], rows)
