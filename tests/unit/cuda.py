"""What the tests on a GPU share."""

from pathlib import Path

import numpy as np
import pytest
import torch

from models.core.dataset import Dataset

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

DATA = Path(__file__).parents[1] / "data"


class Killed(Exception):
    """The run was ended from outside."""


def killed_after(share):
    """A report function that ends the run when ``share`` of it is done."""

    def report(fraction, stage, message):
        if fraction > share:
            raise Killed

    return report


def pictures(count):
    """The first pictures of clothing of the tests' file."""
    with np.load(DATA / "fashion-mnist-600.npz") as archive:
        images, labels = archive["images"][:count, ..., None], archive["labels"][:count].astype(np.int64)
        return Dataset("images", images, labels, archive["class_names"].tolist(), name="fashion-mnist-600")
