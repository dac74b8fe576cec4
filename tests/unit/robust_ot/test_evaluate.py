"""Evaluation on a user's data, and the picture of the proof."""

import numpy as np
import pytest
from PIL import Image

from models.core.dataset import Dataset
from models.core.method import MethodError
from models.core.registry import Registry
from models.core.run import LocalRun
from models.robust_ot.evaluate import evaluate
from models.robust_ot.pictures import shares_picture


@pytest.fixture(scope="module")
def checkpoint():
    return Registry()["robust-ot"].shipped()


def test_users_data_are_polluted_and_measured(checkpoint, tmp_path):
    # Halves of 49: as floating-point numbers, forty-nine times 1/49 is less than one.
    vectors = np.random.default_rng(0).normal(size=(98, 20)).astype(np.float32)
    found = evaluate(checkpoint, LocalRun(tmp_path), Dataset("vectors", vectors, name="mine"))
    assert list(found.data_sha256) == ["mine"]
    values = {(f.name, f.subject, f.setting): f.value for f in found.figures}
    assert values["outlier AUROC", "method", "20% noise"] > 0.9
    robust, plain = (values["relative bias", subject, "20% noise"] for subject in ("method", "plain optimal transport"))
    assert abs(robust) < plain
    assert any("20% noise" in claim for claim in found.claims)


def test_data_too_few_to_be_halved_are_refused(checkpoint, tmp_path):
    with pytest.raises(MethodError, match="19 samples are too few"):
        evaluate(checkpoint, LocalRun(tmp_path), Dataset("vectors", np.zeros((19, 2), np.float32)))


def test_picture_shows_every_kind_of_outlier(tmp_path):
    path = tmp_path / "shares.png"
    shares_picture(lambda subject, setting: [0.1, 0.2], ("noise", "Fashion"), (0.05, 0.1), path)
    with Image.open(path) as picture:
        assert picture.format == "PNG" and picture.width > picture.height and len(picture.getcolors(1 << 20)) > 16
