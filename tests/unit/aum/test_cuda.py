"""The same answers on a GPU."""

from pathlib import Path

import numpy as np
import pytest
import torch

from models.aum import proof
from models.aum.cells import Cell
from models.aum.detection import run as detect
from models.aum.fit import Schedule
from models.aum.method import Aum
from models.aum.network import Classifier
from models.aum.schema import Config, MislabeledDetection, Params
from models.aum.side_by_side import Member, Passes, fit_side_by_side
from models.core.dataset import Dataset
from models.core.registry import Registry
from models.core.run import LocalRun
from tests.unit.cuda import needs_cuda
from tests.unit.local_job import LocalJob

pytestmark = needs_cuda
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


def test_steps_replayed_side_by_side_are_those_of_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    samples, generator = 70, torch.Generator().manual_seed(0)
    inputs = torch.randint(0, 256, (samples, 1, 8, 8), dtype=torch.uint8, generator=generator)
    targets = torch.randint(0, 3, (samples,), generator=generator)

    def network():
        return Classifier("small-cnn", (1, 8, 8), 3, torch.full((1, 1, 1), 127.0), torch.full((1, 1, 1), 74.0))

    members = [Member(network, 0, targets, torch.arange(samples), seed) for seed in (0, 1)]
    found = []
    for device in ("cpu", "cuda"):
        passes = Passes(2, samples, 3, torch.device(device))
        networks = fit_side_by_side(
            inputs.to(device), members, Schedule(4, 16, 0.002, 1e-3), lambda done: None, passes, skip_epochs=1
        )
        assert passes.margins.counts.tolist() == [3] * (2 * samples)
        vectors = [torch.nn.utils.parameters_to_vector(network.parameters()).cpu() for network in networks]
        found.append((torch.stack(vectors), np.stack([member["aum"] for member in passes.split()])))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-2, atol=1e-3)
    np.testing.assert_allclose(found[0][1], found[1][1], rtol=1e-2, atol=1e-2)


def test_a_cell_of_the_proof_agrees_with_the_cpu(tmp_path):
    cells = [Cell("digits", 400, "uniform", 0.2, 0)]
    here, there = (
        proof.measure_cells(cells, LocalRun(tmp_path / device, device=device))[0] for device in ("cpu", "cuda")
    )
    assert here["true_share"] == there["true_share"]
    assert there["auroc_aum"] == pytest.approx(here["auroc_aum"], abs=0.04)
    assert there["accuracy_oracle"] > there["accuracy_all"]
