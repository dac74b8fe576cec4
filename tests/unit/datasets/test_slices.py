"""The same real pictures, vectors and texts from every format."""

import csv
import json

import numpy as np
import pytest

from models.core.sources import load

FORMATS = ["fashion-mnist-600.npz", "fashion-mnist-600.zip", "fashion-mnist-600.parquet", "fashion-mnist-120.tar.gz"]


@pytest.fixture
def reference(read, data):
    return read(data / FORMATS[0]).dataset


def test_the_npz_slice_is_fashion_mnist(reference):
    assert reference.inputs.shape == (600, 28, 28, 1)
    assert reference.inputs.dtype == np.uint8
    assert reference.class_names[0] == "T-shirt/top"
    assert np.bincount(reference.labels).tolist() == [60] * 10
    assert reference.labels[:4].tolist() == [9, 2, 1, 1]  # the published order of the test split


@pytest.mark.parametrize("name", FORMATS[1:])
def test_pictures_and_labels_are_the_same_in_every_format(read, data, reference, name):
    dataset = read(data / name).dataset
    assert dataset.kind == "images"
    names = [n.replace("/", "-") for n in dataset.class_names]
    assert sorted(names) == sorted(n.replace("/", "-") for n in reference.class_names)
    for label, expected in enumerate(n.replace("/", "-") for n in reference.class_names):
        mine = dataset.inputs[dataset.labels == names.index(expected)]
        assert np.array_equal(mine, reference.inputs[reference.labels == label][: len(mine)])
        assert len(mine) in (12, 60)


def test_archives_name_their_members_and_say_what_they_left_out(read, data):
    parsed = read(data / "fashion-mnist-600.zip")
    assert parsed.dataset.sample_ids[0] == "Ankle boot/0000.png"
    assert parsed.warnings == ["members that are no pictures were left out: 'LICENCE.txt'"]


def test_csv_columns_become_vectors(read, data):
    dataset = read(data / "digits-8x8-600.csv").dataset
    with (data / "digits-8x8-600.csv").open(newline="") as file:
        rows = list(csv.reader(file))[1:]
    assert dataset.kind == "vectors"
    assert dataset.inputs.dtype == np.float32
    assert np.array_equal(dataset.inputs, np.array(rows)[:, 1:].astype(np.float32))
    assert [dataset.class_names[label] for label in dataset.labels] == [row[0] for row in rows]
    assert dataset.class_names == list("0123456789")


def test_jsonl_rows_become_texts(read, data):
    dataset = read(data / "docstrings-300.jsonl").dataset
    rows = [json.loads(line) for line in (data / "docstrings-300.jsonl").read_text().splitlines()]
    assert dataset.kind == "text"
    assert dataset.inputs == [row["text"] for row in rows]
    assert dataset.sample_ids == [row["id"] for row in rows]
    assert dataset.class_names == ["numpy", "scikit-learn", "scipy"]


def test_the_slices_are_cut_from_the_published_data(read, data):
    """Fashion-MNIST itself is only on machines that have it; the digits come with scikit-learn."""
    digits = load("digits-8x8", "all")
    dataset = read(data / "digits-8x8-600.csv").dataset
    flat = {row.tobytes() for row in digits.inputs.reshape(len(digits), -1)}
    assert all(row.astype(np.uint8).tobytes() in flat for row in dataset.inputs)
