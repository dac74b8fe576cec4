"""On a CUDA device: the answers of the CPU, and trainings whose steps are recorded and replayed."""

import numpy as np
import pytest
import torch

from models.core.dataset import Dataset
from models.core.outputs import Side, Sides
from models.core.registry import Registry
from models.core.run import LocalRun
from models.robust_ot.adaptation import Adaptation
from models.robust_ot.distance import robust_distance
from models.robust_ot.gan import RobustGAN
from models.robust_ot.schema import AdaptParameters, Config, Params
from tests.unit.cuda import needs_cuda

pytestmark = needs_cuda
CUDA, CPU = torch.device("cuda"), torch.device("cpu")
TINY = Config(width=4, latent=4, batch=8, steps=40, warmup=2, solve_every=3, weight_every=2, outlier_fraction=0.2)


def pictures(count=24):
    return np.random.default_rng(0).integers(0, 256, (count, 28, 28, 1), dtype=np.uint8)


@pytest.mark.parametrize("solver", ["certified", "entropic"])
def test_distances_are_those_of_the_cpu(solver):
    rng = np.random.default_rng(0)
    sides = Sides(Side(rng.normal(size=(60, 2)) + 5.0 * (rng.random((60, 1)) < 0.1)), Side(rng.normal(size=(50, 2))))
    there, here = (robust_distance(sides, Params(solver=solver), device) for device in (CUDA, CPU))
    assert there.distance == pytest.approx(here.distance, rel=1e-2)
    assert there.details["plain_distance"] == pytest.approx(here.details["plain_distance"], rel=1e-6)


@pytest.mark.parametrize("weighting", ["discrete", "network"])
def test_recorded_steps_move_every_network(weighting):
    gan = RobustGAN(pictures(), TINY.model_copy(update={"weighting": weighting}), 0, CUDA)
    for number in range(1, 21):
        gan.step(number)
    before = {name: [p.clone() for p in module.parameters()] for name, module in gan.modules.items()}
    drawn = []
    for number in range(21, 41):
        gan.step(number)
        drawn.append(gan._chosen.tolist())
    assert np.isfinite(float(gan.critic_loss)) and len({tuple(rows) for rows in drawn}) > 15
    for name, module in gan.modules.items():
        assert any(not torch.equal(p, q) for p, q in zip(module.parameters(), before[name], strict=True)), name
    assert gan.final_weights().mean() == pytest.approx(1.0, abs=1e-6) and np.ptp(gan.final_weights()) > 0.0


def test_a_recorded_step_is_the_step():
    """Without chance, ten steps of which seven are replayed end where ten plain ones do."""
    ends = []
    for device in (CPU, CUDA):
        parameters = AdaptParameters(target="t", batch=8, steps=10, source_steps=10)
        source = (torch.full((1, 5), 2.0) + torch.arange(5)).repeat(30, 1)
        game = Adaptation(source, torch.zeros(30, dtype=torch.int64), 2, source, parameters, 0, device)
        for number in range(1, 11):
            game.step(number)
        ends.append([p.detach().cpu() for p in game.network.parameters()])
    for here, there in zip(*ends, strict=True):
        torch.testing.assert_close(there, here, rtol=2e-3, atol=2e-4)


def test_adaptation_finds_outliers_and_falls_in_rate():
    rng = np.random.default_rng(0)
    labels = np.arange(200) % 2
    source = (np.eye(3)[labels] * 4 + rng.normal(size=(200, 3))).astype(np.float32)
    target = (np.eye(3)[labels] * 4 + 0.5 + rng.normal(size=(200, 3))).astype(np.float32)
    target[:20] = [0.0, 12.0, 0.0]
    parameters = AdaptParameters(target="t", steps=200, source_steps=40, batch=32, solve_every=20)
    game = Adaptation(
        torch.from_numpy(source), torch.from_numpy(labels), 2, torch.from_numpy(target), parameters, 0, CUDA
    )
    for number in range(1, 201):
        game.step(number)
    assert all(np.isfinite(float(loss)) for loss in game.losses.values())
    assert float(game._rate) == pytest.approx(parameters.learning_rate * 1.02**-0.75)
    assert game.weights.mean() == pytest.approx(1.0) and np.ptp(game.weights) > 0.0


def test_a_training_goes_on_from_its_resume_point(tmp_path, monkeypatch):
    monkeypatch.setattr("models.robust_ot.train.SAVE_EVERY", 15)
    entry, dataset = Registry()["robust-ot"], Dataset("images", pictures())
    for _ in range(2):
        run = LocalRun(tmp_path, device="cuda")
        checkpoint = entry.method.train(dataset, TINY, run)
    assert run.load_state()[1]["step"] == 30
    assert all(torch.isfinite(tensor.float()).all() for tensor in checkpoint.tensors().values())
