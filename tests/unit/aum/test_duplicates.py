import numpy as np

from models.aum.duplicates import find_duplicates
from models.core.dataset import Dataset


def test_twins_and_their_contradictions_are_found():
    texts = ["a", "b", "a", "c", "b", "a", "d"]
    labels = np.array([0, 1, 0, 1, 0, 1, 0])
    found = find_duplicates(Dataset("text", texts, labels, ["no", "yes"], [f"id{i}" for i in range(7)]), labels)
    assert (found["groups"], found["samples"]) == (2, 5)
    assert (found["conflicting_groups"], found["conflicting_samples"]) == (2, 5)
    assert found["examples"][0] == {"indices": [0, 2, 5], "ids": ["id0", "id2", "id5"], "labels": ["no", "no", "yes"]}


def test_pictures_of_other_shape_but_equal_bytes_are_no_twins():
    flat = np.arange(12, dtype=np.uint8)
    images = [flat.reshape(3, 4, 1), flat.reshape(4, 3, 1), flat.reshape(3, 4, 1)]
    labels = np.array([0, 1, 0])
    found = find_duplicates(Dataset("images", images, labels, ["no", "yes"]), labels)
    assert (found["groups"], found["samples"], found["conflicting_groups"], found["examples"]) == (1, 2, 0, [])
