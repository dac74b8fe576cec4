"""Other methods' trainers with SAM, and the cost of a step."""

from dataclasses import replace

import pytest
import torch

from models.core.registry import Registry
from models.core.run import LocalRun
from models.sam import timing, trainers
from models.sam.findings import trainer_claims, trainer_figures
from tests.unit.cuda import pictures


@pytest.mark.parametrize("slug", list(trainers.TRAINERS))
@pytest.mark.parametrize("rho", trainers.RADII)
def test_every_compared_training_is_one_that_the_method_accepts(slug, rho):
    config = trainers.options(slug, rho)
    assert isinstance(config, Registry()[slug].config)
    assert config.sharpness_aware.radius == rho


def test_a_neighbour_is_trained_with_sam_and_judged_on_the_test_set(monkeypatch, tmp_path):
    monkeypatch.setattr(trainers, "load", lambda name, split: pictures(300))
    short = replace(trainers.TRAINERS["aum"], config={"epochs": 2, "validation_share": 0})
    monkeypatch.setitem(trainers.TRAINERS, "aum", short)
    row = trainers.measure_trainer("aum", 0.05, 0, LocalRun(tmp_path))
    assert row["trainer"] == "aum" and row["rho"] == 0.05 and 0.1 < row["value"] <= 1
    rows = [row, row | {"rho": 0.0, "value": 0.5}]
    assert [figure.subject for figure in trainer_figures(rows)] == ["aum, SAM, rho 0.05", "aum, without SAM"]
    (claim,) = trainer_claims(rows)
    assert claim.endswith("without 0.5000.") and "1 seed)" in claim


def test_a_step_of_sam_costs_two_passes(monkeypatch):
    monkeypatch.setattr(timing, "BLOCK", 2)
    monkeypatch.setattr(timing, "BLOCKS", 3)
    row = timing.measure_steps("mlp", torch.device("cpu"))
    assert row["device"] == "CPU" and row["ratio"] > 1 and row["sam_ms"] > row["sgd_ms"] > 0
