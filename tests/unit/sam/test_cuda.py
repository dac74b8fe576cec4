"""On a GPU: the answers of the CPU, trainings that run and go on, and the ensemble as a replayed graph."""

import numpy as np
import pytest
import torch

from models.core.registry import Registry
from models.core.run import LocalRun
from models.sam.ensemble import Ensemble, Schedule, Steps
from models.sam.jobs import measure_sharpness
from models.sam.proof import curvature
from models.sam.schema import Config, Params, SharpnessReport
from models.sam.timing import measure_steps
from tests.unit.cuda import Killed, killed_after, needs_cuda, pictures
from tests.unit.sam.test_ensemble import member

pytestmark = needs_cuda
CUDA, CPU = torch.device("cuda"), torch.device("cpu")


@pytest.fixture(scope="module")
def entry():
    return Registry()["sam"]


def test_answers_and_curvature_of_the_shipped_versions_are_those_of_the_cpu(entry):
    data = pictures(100)
    for checkpoint in entry.all_shipped().values():
        there, here = (entry.method.load(checkpoint, device) for device in (CUDA, CPU))
        answers = [np.stack(method.predict(data.inputs, Params())) for method in (there, here)]
        assert np.allclose(*answers, atol=2e-3)
        ends = []
        for method in (there, here):
            network, loss = method.objective(data)
            assert loss().device.type == method.network.mean.device.type
            inputs = torch.from_numpy(data.inputs.transpose(0, 3, 1, 2).copy())
            ends.append(curvature(network, inputs, torch.from_numpy(data.labels)))
        assert ends[0]["lambda_max"] == pytest.approx(ends[1]["lambda_max"], rel=2e-2)


@pytest.mark.parametrize("encoder", ["small-cnn", "wrn-10-2"])
def test_a_training_that_was_killed_ends_as_a_whole_one(entry, encoder, tmp_path):
    data = pictures(300)
    config = Config(encoder=encoder, epochs=3, batch_size=64, shift=2, test_share=0, learning_rate=0.02)
    whole = entry.method.train(data, config, LocalRun(tmp_path / "whole", device="cuda"))
    with pytest.raises(Killed):
        entry.method.train(data, config, LocalRun(tmp_path / "cut", device="cuda", report=killed_after(0.5)))
    again = entry.method.train(data, config, LocalRun(tmp_path / "cut", device="cuda"))
    outputs = [np.stack(entry.method.load(found, CPU).predict(data.inputs, Params())) for found in (whole, again)]
    assert np.abs(outputs[0] - outputs[1]).mean() < 0.02  # kernels of a GPU add in no fixed order
    assert whole.config.outputs["perturbed_steps"] == whole.config.outputs["steps"]


def test_the_replayed_graph_of_an_ensemble_gives_the_weights_of_the_cpu():
    options = (Steps(), Steps(0.2), Steps(smoothing=0.1), Steps(mixup=0.2), Steps(average=0.9))
    found = []
    for device in (CUDA, CPU):
        ensemble = Ensemble([member(steps) for steps in options], Schedule(3, batch_size=30), device)
        for _ in range(3):
            ensemble.epoch()
        found.append({name: weight.cpu() for name, weight in ensemble.kept().items()})
    for name, weight in found[0].items():
        assert torch.allclose(weight, found[1][name], atol=2e-4), name


def test_a_random_direction_differs_from_step_to_step():
    ensemble = Ensemble([member(Steps(0.2, random=True)), member()], Schedule(8, batch_size=30), CUDA)
    for _ in range(8):
        ensemble.epoch()
    inputs, labels = member().inputs, member().labels
    assert float(ensemble.accuracies(inputs, labels).min()) > 0.8
    assert not torch.equal(*(weights for weights in next(iter(ensemble.weights.values()))))


def test_the_sharpness_report_runs(entry, tmp_path):
    method = entry.method.load(entry.shipped(), CUDA)
    network, loss = method.objective(pictures(60))
    facts = measure_sharpness(
        list(network.parameters()), loss, SharpnessReport(probes=4, points=5, iterations=10), LocalRun(tmp_path)
    )
    assert facts["lambda_max"] > facts["lambda_5"] and facts["max_increase_1_step"] > 0


def test_a_sharp_step_costs_more_than_a_plain_one():
    row = measure_steps("wrn-10-2", CUDA)
    assert 1.2 < row["ratio"] < 4 and row["device"] != "CPU"
