"""Data sets as clouds: pictures of a common form, vectors as they are, draws."""

import numpy as np
import pytest

from models.core.dataset import Dataset
from models.core.inputs import ImageSpec, InputError
from models.core.transport.clouds import draw, picture_spec, points, side


def test_draws_are_ordered_without_repetition_and_repeatable():
    rows = draw(50, 20, 3)
    assert len(set(rows.tolist())) == 20 and (np.diff(rows) > 0).all() and rows.max() < 50
    assert draw(50, 20, 3).tolist() == rows.tolist() != draw(50, 20, 4).tolist()
    assert draw(5, 20, 0).tolist() == [0, 1, 2, 3, 4]


def test_pictures_meet_in_their_least_height_width_and_colour():
    rng = np.random.default_rng(0)
    grey = Dataset("images", rng.integers(0, 256, (3, 12, 8, 1), dtype=np.uint8))
    mixed = Dataset("images", [rng.integers(0, 256, (10, 9, 3), dtype=np.uint8), np.zeros((7, 30, 3), dtype=np.uint8)])
    assert picture_spec(grey, mixed) == ImageSpec(height=7, width=8, channels=1)
    assert picture_spec(mixed) == ImageSpec(height=7, width=9, channels=3)
    cloud = side(grey)
    np.testing.assert_array_equal(cloud.points, grey.inputs.reshape(3, -1) / 255)
    assert points(mixed, picture_spec(grey, mixed)).shape == (2, 56)


def test_vectors_keep_their_labels_and_text_is_refused():
    vectors = Dataset("vectors", np.arange(6, dtype=np.float32).reshape(3, 2), np.array([1, 0, 1]), ["x", "y"])
    cloud = side(vectors)
    assert cloud.points.dtype == np.float64 and cloud.points.tolist() == [[0, 1], [2, 3], [4, 5]]
    assert cloud.labels.tolist() == [1, 0, 1] and cloud.class_names == ["x", "y"] and cloud.weights is None
    with pytest.raises(InputError, match="holds text; a distance needs images or vectors"):
        points(Dataset("text", ["a"]))
    with pytest.raises(InputError, match="holds vectors, not images"):
        picture_spec(vectors)
