"""The same answers on a GPU."""

from pathlib import Path

import numpy as np
import pytest
import torch

from models.aum import proof
from models.aum.cells import Cell
from models.aum.detection import run as detect
from models.aum.method import Aum
from models.aum.schema import Config, MislabeledDetection, Params
from models.core.dataset import Dataset
from models.core.registry import Registry
from models.core.run import LocalRun
from tests.unit.local_job import LocalJob

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
DATA = Path(__file__).parents[2] / "data"


def pictures():
    with np.load(DATA / "fashion-mnist-600.npz") as archive:
        names = archive["class_names"].tolist()
        return Dataset("images", archive["images"][..., None], archive["labels"].astype(np.int64), names)


def test_predictions_are_those_of_the_cpu():
    checkpoint, inputs = Registry()["aum"].shipped(), pictures().inputs[:256]
    found = [Aum.load(checkpoint, torch.device(device)).predict(inputs, Params()) for device in ("cpu", "cuda")]
    np.testing.assert_allclose(*map(np.stack, found), atol=2e-2)
    assert np.abs(np.stack(found[0]) - np.stack(found[1])).mean() < 1e-3


class _KilledError(Exception):
    pass


def test_a_killed_training_goes_on(tmp_path):
    config = Config(epochs=3, early_stopping={"patience": 2, "min_epochs": 1})
    run = LocalRun(tmp_path, device="cuda")
    save = run.save_state

    def killed(tensors, meta):
        save(tensors, meta)
        raise _KilledError

    run.save_state = killed
    with pytest.raises(_KilledError):
        Aum.train(pictures(), config, run)
    checkpoint = Aum.train(pictures(), config, LocalRun(tmp_path, device="cuda"))
    assert checkpoint.figures.figures[0].value > 0.6
    assert len(checkpoint.figures.tables["curve"]) >= 2


def test_the_job_ranks_as_on_the_cpu(tmp_path):
    aums = []
    for device in ("cpu", "cuda"):
        job = LocalJob(tmp_path / device, upload=DATA / "fashion-mnist-600.npz", seed=1, device=device)
        result = detect(job, MislabeledDetection(epochs=3, retrain_seeds=1, trajectories=True))
        aums.append([item["aum"] for item in sorted(result["ranking"], key=lambda item: item["index"])])
    assert np.corrcoef(*aums)[0, 1] > 0.95


def test_a_cell_of_the_proof_agrees_with_the_cpu(tmp_path):
    cells = [Cell("digits", 1000, "uniform", 0.2, seed) for seed in (0, 1)]
    here, there = (proof.measure_cells(cells, LocalRun(tmp_path / device, device=device)) for device in ("cpu", "cuda"))
    for one, other in zip(here, there, strict=True):
        assert one["true_share"] == other["true_share"]
        assert other["auroc_aum"] == pytest.approx(one["auroc_aum"], abs=0.02)
        assert other["accuracy_oracle"] == pytest.approx(one["accuracy_oracle"], abs=0.06)
