"""The method: what ships, the stored proof, evaluation on a user's data."""

from pathlib import Path

import numpy as np
import pytest
import torch

from models.core.dataset import Dataset
from models.core.registry import Registry
from models.core.run import LocalRun
from models.early_stopping.evaluate import SHIPPED_SETTING, summarise
from models.early_stopping.proof import LAW, slopes
from models.early_stopping.schema import PRESETS, Config, NoiseRobustnessReport, Params, RobustTrain

DATA = Path(__file__).parents[2] / "data"


@pytest.fixture(scope="module")
def entry():
    return Registry()["early-stopping"]


@pytest.fixture(scope="module")
def pictures():
    with np.load(DATA / "fashion-mnist-600.npz") as archive:
        return Dataset(
            "images", archive["images"][..., None], archive["labels"].astype(np.int64), archive["class_names"].tolist()
        )


def test_the_card_names_what_the_schema_has(entry):
    assert set(entry.presets) == set(PRESETS) == {"cpu", "paper"}
    assert [entry.model(kind.parameters) for kind in entry.card.jobs] == [RobustTrain, NoiseRobustnessReport]
    assert [entry.job_function(kind).__name__ for kind in entry.card.jobs] == ["robust_train", "report"]


def test_the_shipped_version_was_stopped_and_knows_clothes(entry, pictures):
    checkpoint = entry.shipped()
    assert Config.model_validate(checkpoint.config.config).early_stopping.rule == "noisy-validation"
    assert checkpoint.config.outputs["epoch"] < checkpoint.config.outputs["stopped_at"] < 30
    method = entry.method.load(checkpoint, torch.device("cpu"))
    predicted = np.stack(method.predict(pictures.inputs, Params())).argmax(axis=1)
    names = [checkpoint.config.class_names[index] for index in predicted]
    given = [pictures.class_names[label] for label in pictures.labels]
    assert np.mean([a == b for a, b in zip(names, given, strict=True)]) > 0.75


def test_evaluates_a_users_data(entry, pictures, tmp_path):
    figures = entry.method.evaluate(entry.shipped(), LocalRun(tmp_path), pictures)
    found = {figure.name: figure.value for figure in figures.figures}
    assert found["accuracy"] > 0.75 and 0 < found["cross-entropy"] < 2


def test_the_stored_summary_is_reproducible(entry):
    stored = entry.shipped().figures
    shipped = [figure for figure in stored.figures if figure.setting == SHIPPED_SETTING]
    assert [figure.subject for figure in shipped] == ["method"]
    again = summarise(stored.tables, shipped)
    assert again.claims == stored.claims
    for row in stored.tables["proof"]:
        if row["noise"]:
            assert row["stopped"] > row["last"] and row["fit_corrupt_stopped"] < row["fit_corrupt_last"]
            assert row["relative_distance_stopped"] < row["relative_distance_last"]


def test_the_slope_of_the_displacement_law():
    law = [{"eps": eps, "distance_true": 3.0, "distance_corrupt": 5 / eps} for eps in LAW]
    found = slopes(law)
    assert found["distance_true"] == pytest.approx(0, abs=1e-9)
    assert found["distance_corrupt"] == pytest.approx(-1)
