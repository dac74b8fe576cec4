"""The method: what ships, the proof's pieces, the stored figures, evaluation on a user's data."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from models.core.dataset import Dataset
from models.core.method import MethodError
from models.core.registry import Registry
from models.core.run import LocalRun
from models.core.trainer_options import SharpnessAware
from models.sam import proof
from models.sam.evaluate import summarise
from models.sam.proof import ARMS, BEST, CELLS, DOUBLE, NOISES, RANDOM, SEEDS, SGD, Cell, curvature, groups
from models.sam.schema import PRESETS, Config, Params, RhoSearch, SharpnessReport

DATA = Path(__file__).parents[2] / "data"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def entry():
    return Registry()["sam"]


@pytest.fixture(scope="module")
def pictures():
    with np.load(DATA / "fashion-mnist-600.npz") as archive:
        return Dataset(
            "images", archive["images"][..., None], archive["labels"].astype(np.int64), archive["class_names"].tolist()
        )


def test_the_card_names_what_the_schema_has(entry):
    assert set(entry.presets) == set(PRESETS) == {"cpu", "paper"}
    models = [entry.model(kind.parameters) for kind in entry.card.jobs]
    assert models == [RhoSearch, SharpnessReport]
    assert [entry.job_function(kind).__name__ for kind in entry.card.jobs] == ["search", "report"]


def test_both_versions_know_clothes_and_differ_in_the_optimiser_alone(entry, pictures):
    shipped = entry.all_shipped()
    assert list(shipped) == ["1", "sgd"]
    configs = [Config.model_validate(checkpoint.config.config) for checkpoint in shipped.values()]
    assert [config.sharpness_aware.radius for config in configs] == [0.1, 0]
    assert configs[0].model_copy(update={"sharpness_aware": SharpnessAware()}) == configs[1]
    for checkpoint, perturbed in zip(shipped.values(), (True, False), strict=True):
        facts = checkpoint.config.outputs
        assert facts["perturbed_steps"] == (facts["steps"] if perturbed else 0)
        method = entry.method.load(checkpoint, CPU)
        predicted = np.stack(method.predict(pictures.inputs, Params())).argmax(axis=1)
        names = [checkpoint.config.class_names[index] for index in predicted]
        given = [pictures.class_names[label] for label in pictures.labels]
        assert np.mean([a == b for a, b in zip(names, given, strict=True)]) > 0.85


def test_evaluates_a_users_data(entry, pictures, tmp_path):
    figures = entry.method.evaluate(entry.shipped(), LocalRun(tmp_path), pictures)
    found = {figure.name: figure.value for figure in figures.figures}
    assert found["accuracy"] > 0.85 and 0 < found["cross-entropy"] < 1
    other = Dataset("images", pictures.inputs, pictures.labels, [f"x{i}" for i in range(10)])
    with pytest.raises(MethodError, match="class 'x0' is not one of the checkpoint's"):
        entry.method.evaluate(entry.shipped(), LocalRun(tmp_path), other)


def test_the_arms_of_the_proof():
    assert ARMS[DOUBLE].optimiser_steps == 2 * ARMS[SGD].optimiser_steps == 2 * ARMS[BEST].perturbed_steps
    assert [ARMS[name].steps.rho for name in (SGD, DOUBLE, BEST, RANDOM)] == [0, 0, 0.2, 0.2]
    assert ARMS[SGD].perturbed_steps == 0 and ARMS[RANDOM].steps.random
    assert len(set(CELLS)) == len(CELLS) == len(ARMS) * len(NOISES) * len(SEEDS)


def test_cells_of_a_group_share_schedule_and_noise_and_none_is_lost():
    found = groups(CELLS)
    assert sorted(map(repr, (cell for group in found for cell in group))) == sorted(map(repr, CELLS))
    for group in found:
        assert len({(ARMS[cell.arm].schedule, ARMS[cell.arm].steps.rho > 0, cell.noise) for cell in group}) == 1
    assert found[0][0].noise == 0.4 and len(found) == 5 * len(NOISES)


def test_a_small_group_is_measured_as_a_whole(monkeypatch, pictures, tmp_path):
    monkeypatch.setattr(proof, "load", lambda name, split: pictures)
    monkeypatch.setattr(proof, "SAMPLES", 600)
    short = {arm: replace(ARMS[arm], schedule=replace(ARMS[arm].schedule, epochs=8)) for arm in (SGD, BEST)}
    monkeypatch.setattr(proof, "ARMS", short)
    rows = proof.measure_group([Cell(arm, 0.4, seed) for arm in short for seed in (0, 1)], LocalRun(tmp_path))
    assert [(row["arm"], row["seed"]) for row in rows] == [(SGD, 0), (SGD, 1), (BEST, 0), (BEST, 1)]
    for row in rows:
        assert row["best"] >= row["final"] > 0.3 and row["train"] > 0.3 and 0 <= row["recovered"] <= 1
        assert row["lambda_max"] > row["lambda_5"] > row["lambda_min"] and row["steps"] == 8 * 6
    assert rows[0]["lambda_max"] > rows[2]["lambda_max"]


def test_curvature_of_the_shipped_versions_is_what_is_stored(entry, pictures):
    from models.core.classifiers import as_tensor, read_classifier

    for checkpoint in entry.all_shipped().values():
        chosen = pictures.select(range(100))
        inputs = as_tensor(chosen, checkpoint.config.input)
        found = curvature(read_classifier(checkpoint), inputs, torch.from_numpy(chosen.require_labels()))
        assert found["lambda_max"] >= found["lambda_5"] > 0 > found["lambda_min"]


def test_the_stored_summary_is_reproducible_and_sam_beats_sgd_under_noise(entry):
    stored = entry.shipped().figures
    again = summarise(stored.tables)
    assert again.claims == stored.claims
    before = {(f.name, f.subject, f.setting): f.value for f in stored.figures}
    assert all(before[f.name, f.subject, f.setting] == pytest.approx(f.value) for f in again.figures)
    rows = {(row["arm"], row["noise"], row["seed"]): row for row in stored.tables["proof"]}
    for seed in {row["seed"] for row in stored.tables["proof"] if row["noise"] == 0.4 and row["arm"] == BEST}:
        sam, sgd, double = (rows[arm, 0.4, seed] for arm in (BEST, SGD, DOUBLE))
        assert sam["final"] - max(sgd["final"], double["final"]) > 0.1
        assert sam["lambda_max"] < sgd["lambda_max"] and sam["perturbed_steps"] == sgd["steps"]
