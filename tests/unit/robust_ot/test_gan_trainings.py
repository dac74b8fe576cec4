"""The trainings of the generators' proof, and what is shipped of them, in small."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from models.core.checkpoint import Checkpoint
from models.core.registry import Registry
from models.robust_ot import gan_trainings, ship
from models.robust_ot.adaptation_proof import ARMS, DIRECTIONS, SEEDS, STEPS, STORED, setting
from models.robust_ot.gan_proof import SETTING, SUBJECTS, Judge
from models.robust_ot.gan_trainings import measured_row, start, trace_row, train_together
from models.robust_ot.train import tensors

CPU = torch.device("cpu")


@pytest.fixture
def tiny(monkeypatch):
    small = {"width": 4, "batch": 8, "warmup": 2, "solve_every": 2, "latent": 4}
    arms = {name: config.model_copy(update=small) for name, config in gan_trainings.ARMS.items()}
    monkeypatch.setattr(gan_trainings, "ARMS", arms)
    monkeypatch.setattr(ship, "ARMS", arms)
    monkeypatch.setattr(gan_trainings, "LOOK_EVERY", 2)


def test_trainings_go_side_by_side_until_the_steps_or_the_time_are_over(tiny):
    trainings = [start(cell, 0, 6, CPU) for cell in ("robust", "plain", "clean-robust")]
    looks = []
    assert train_together(trainings, 5, float("inf"), looks.append) == 5
    assert looks == [2, 4, 5]
    assert train_together(trainings, 100, 0.0, looks.append) == 2
    assert [training.outlier.sum() for training in trainings] == [800, 800, 0]
    robust, plain, clean = (trace_row(training, 5) for training in trainings)
    assert 0 < robust["weight_auroc"] < 1 and plain["weight_auroc"] == 0.5 and "weight_auroc" not in clean
    assert np.ptp(trainings[0].game.final_weights()) > 0 == np.ptp(trainings[1].game.final_weights())


def test_what_is_shipped_is_what_was_trained(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(ship, "WEIGHTS", tmp_path / "weights")
    real = np.zeros((80, 28, 28, 1), dtype=np.uint8)
    real[:, 5:20] = np.random.default_rng(0).integers(0, 256, (80, 15, 28, 1))
    rows = []
    for cell in ("plain", "discrete"):
        training = start(cell, 1, 3, CPU)
        train_together([training], 3, float("inf"), lambda _: None)
        rows.append(measured_row(training, Judge(), real, 3) | {"device": "CPU"})
        kept = {name: tensor.contiguous() for name, tensor in tensors(training.game).items()}
        save_file(kept, tmp_path / f"{training.name}.safetensors")
    assert 0 <= rows[0]["Fashion share of samples"] <= 1 and rows[0]["Frechet distance to clean digits"] > 0
    assert "AUROC of training weights" in rows[1] and "AUROC of training weights" not in rows[0]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    ship.ship([tmp_path])
    found = Checkpoint(tmp_path / "weights")
    assert list(found.config.outputs["proof"]) == ["plain-1"]
    entry, kept = found.config.outputs["proof"]["plain-1"], found.tensors()
    assert (entry["subject"], entry["seed"], entry["config"]["steps"]) == ("plain", 1, 3)
    expected = start("plain", 1, 3, CPU).game.generator.state_dict()
    assert {name.removeprefix("plain-1.generator.") for name in kept if ".generator." in name} == set(expected)


def test_the_shipped_proof_is_complete():
    shipped = Registry()["robust-ot"].shipped()
    entries = shipped.config.outputs["proof"].values()
    assert {entry["subject"] for entry in entries} <= set(SUBJECTS)
    pairs = {(entry["subject"], entry["seed"]) for entry in entries}
    assert pairs >= {(arm, seed) for arm in ("robust", "plain") for seed in (0, 1)}
    rows = json.loads(STORED.read_text())
    cells = {(row["setting"], row["arm"], row["seed"], row["steps"]) for row in rows}
    assert cells == {(setting(*d), arm, seed, STEPS) for d in DIRECTIONS for arm in ARMS for seed in range(SEEDS)}
    figures = {(figure.name, figure.setting) for figure in shipped.figures.figures}
    assert {("target accuracy", setting(*direction)) for direction in DIRECTIONS} < figures
    assert ("Fashion share of samples", SETTING) in figures
