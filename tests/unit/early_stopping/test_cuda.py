"""On a GPU: the answers of the CPU, a training that goes on after a kill, and a report."""

import numpy as np
import pytest
import torch

from models.core.registry import Registry
from models.core.run import LocalRun
from models.core.trainer_options import EarlyStopping
from models.early_stopping import proof
from models.early_stopping.schema import Config, Params
from tests.unit.cuda import Killed, killed_after, needs_cuda, pictures

pytestmark = needs_cuda


@pytest.fixture(scope="module")
def entry():
    return Registry()["early-stopping"]


def test_answers_of_the_shipped_version_are_those_of_the_cpu(entry):
    data = pictures(100)
    answers = [
        np.stack(entry.method.load(entry.shipped(), torch.device(name)).predict(data.inputs, Params()))
        for name in ("cuda", "cpu")
    ]
    assert np.allclose(*answers, atol=2e-3)


def test_a_training_that_was_killed_goes_on(entry, tmp_path):
    data = pictures(600)
    config = Config(epochs=4, test_share=0, early_stopping=EarlyStopping(validation_share=0.3, continue_to_end=True))
    whole = entry.method.train(data, config, LocalRun(tmp_path / "whole", device="cuda"))
    with pytest.raises(Killed):
        entry.method.train(data, config, LocalRun(tmp_path / "cut", device="cuda", report=killed_after(0.6)))
    again = entry.method.train(data, config, LocalRun(tmp_path / "cut", device="cuda"))
    curves = [[row["validation_accuracy"] for row in found.figures.tables["curve"]] for found in (whole, again)]
    assert len(curves[0]) == 4 and np.allclose(*curves, atol=0.03)


def test_a_cell_of_the_proof(monkeypatch, tmp_path):
    monkeypatch.setattr(proof, "load", lambda name, split: pictures(600))
    monkeypatch.setitem(proof.SAMPLES, "fashion-mnist", 600)
    row, curve = proof.measure_cell(proof.Cell("fashion-mnist", 0.4, 0), LocalRun(tmp_path, device="cuda"))
    assert len(curve) == proof.EPOCHS and row["best"] >= row["stopped"] > 0.3
