import numpy as np
import pytest

from models.core.noise import corrupt_labels, transition_matrix


def test_uniform_spreads_over_the_other_classes():
    matrix = transition_matrix("uniform", 0.4, 10)
    assert np.diag(matrix) == pytest.approx(0.6)
    assert matrix[0, 1:] == pytest.approx(0.4 / 9)
    assert matrix.sum(axis=1) == pytest.approx(1)


def test_flip_moves_to_the_next_class():
    matrix = transition_matrix("flip", 0.3, 3)
    assert matrix.tolist() == pytest.approx(np.array([[0.7, 0.3, 0], [0, 0.7, 0.3], [0.3, 0, 0.7]]))


@pytest.mark.parametrize("kind", ["uniform", "flip"])
def test_drawn_labels_follow_the_matrix_and_the_seed(kind):
    labels = np.repeat(np.arange(4), 5000)
    noisy = corrupt_labels(labels, 4, kind=kind, rate=0.2, seed=3)
    assert np.array_equal(noisy, corrupt_labels(labels, 4, kind=kind, rate=0.2, seed=3))
    assert not np.array_equal(noisy, corrupt_labels(labels, 4, kind=kind, rate=0.2, seed=4))
    drawn = np.array([np.bincount(noisy[labels == y], minlength=4) for y in range(4)]) / 5000
    np.testing.assert_allclose(drawn, transition_matrix(kind, 0.2, 4), atol=0.02)


def test_no_noise_changes_nothing_and_bad_rates_are_refused():
    labels = np.arange(5)
    assert np.array_equal(corrupt_labels(labels, 5, kind="uniform", rate=0.0, seed=0), labels)
    with pytest.raises(ValueError, match=r"the noise rate lies in \[0, 1\], got 1.5"):
        transition_matrix("uniform", 1.5, 3)
    with pytest.raises(ValueError, match="at least two classes"):
        transition_matrix("flip", 0.1, 1)
