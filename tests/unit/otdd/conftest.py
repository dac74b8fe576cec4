from pathlib import Path

import numpy as np
import pytest

from models.otdd.variants import inverted, original, rotated
from tests.unit.local_job import LocalJob

DATA = Path(__file__).parents[2] / "data"
SIZE = 200


def write(folder, name, dataset):
    path = folder / f"{name}.npz"
    np.savez(path, images=dataset.inputs, labels=dataset.labels, class_names=np.array(dataset.class_names))
    return path


@pytest.fixture(scope="module")
def uploads(tmp_path_factory):
    """Data set ids by name, in one store."""
    folder = tmp_path_factory.mktemp("uploads")
    job = LocalJob(folder / "uploader", folder / "store")
    digits = original("digits", 1200, 0)
    sets = {
        "digits": digits.select(range(SIZE)),
        "other digits": digits.select(range(SIZE, 2 * SIZE)),
        "rotated": rotated(digits.select(range(2 * SIZE, 3 * SIZE)), 60),
        "inverted": inverted(digits.select(range(3 * SIZE, 4 * SIZE))),
    }
    ids = {name: job.register_dataset(write(folder, name, dataset), name) for name, dataset in sets.items()}
    ids["garments"] = job.register_dataset(DATA / "fashion-mnist-600.npz", "garments")
    ids["vectors"] = job.register_dataset(DATA / "digits-8x8-600.csv", "vectors")
    ids["text"] = job.register_dataset(DATA / "docstrings-300.jsonl", "text")
    unlabelled = folder / "unlabelled.npz"
    np.savez(unlabelled, images=sets["digits"].inputs)
    ids["unlabelled"] = job.register_dataset(unlabelled, "unlabelled")
    return folder / "store", ids
