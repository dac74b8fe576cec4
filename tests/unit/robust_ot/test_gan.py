import csv

import numpy as np
import pytest
import torch

from models.core.checkpoint import Checkpoint
from models.core.dataset import Dataset
from models.core.method import MethodError
from models.core.outputs import Side, Sides
from models.core.registry import Registry
from models.core.run import LocalRun
from models.robust_ot.dual import chi_square
from models.robust_ot.gan import RobustGAN, generate
from models.robust_ot.networks import Critic, Generator, WeightsNetwork, divergence, gradient_penalty, normalised
from models.robust_ot.schema import PRESETS, Config, Params

TINY = Config(width=4, latent=4, batch=8, steps=12, warmup=2, solve_every=3, weight_every=2, outlier_fraction=0.2)
CPU = torch.device("cpu")


def pictures(count=24, channels=1, size=28):
    return np.random.default_rng(0).integers(0, 256, (count, size, size, channels), dtype=np.uint8)


class Killed(Exception):
    pass


def killed_after(run, saves):
    """Make ``run`` die right after its ``saves``-th resume point."""
    save, left = run.save_state, [saves]

    def saving(tensors, meta):
        save(tensors, meta)
        left[0] -= 1
        if not left[0]:
            raise Killed

    run.save_state = saving
    return run


def test_weights_of_a_batch_have_mean_one_and_are_positive():
    raw = WeightsNetwork(TINY, 1)(torch.randn(16, 1, 28, 28))
    weights = normalised(raw.detach())
    assert float(weights.mean()) == pytest.approx(1.0, abs=1e-5)
    assert float(weights.min()) > 0.0
    assert weights.tolist() == pytest.approx([1.0] * 16)


def test_ball_is_free_inside_and_costs_outside():
    weights = torch.tensor([0.5, 1.5, 1.0, 1.0])
    assert float(divergence(weights)) == pytest.approx(0.0625)
    assert float(torch.relu(divergence(weights) - 0.07)) == 0.0
    assert float(torch.relu(divergence(weights) - 0.05)) == pytest.approx(0.0125)


def test_gradient_penalty_of_a_linear_critic():
    class Linear(torch.nn.Module):
        def forward(self, x):
            return 3.0 * x.flatten(1)[:, 0]

    a, b = torch.randn(5, 1, 28, 28), torch.randn(5, 1, 28, 28)
    assert float(gradient_penalty(Linear(), a, b, torch.Generator())) == pytest.approx(4.0, abs=1e-5)


@pytest.mark.parametrize("preset", ["cpu", "paper"])
def test_presets_fit_their_pictures(preset):
    config = PRESETS[preset].model_copy(update={"width": 4})
    fake = Generator(config, 3)(torch.randn(2, config.latent))
    assert fake.shape == (2, 3, config.size, config.size)
    assert Critic(config, 3)(fake).shape == WeightsNetwork(config, 3)(fake).shape == (2,)


@pytest.mark.parametrize("weighting", ["discrete", "network"])
def test_weights_move_and_stay_normalised(weighting):
    gan = RobustGAN(pictures(), TINY.model_copy(update={"weighting": weighting}), 0, CPU)
    for number in range(1, 13):
        gan.step(number)
        assert np.isfinite(float(gan.critic_loss))
    weights = gan.final_weights()
    assert weights.mean() == pytest.approx(1.0, abs=1e-6)
    assert weights.min() >= 0.0
    assert np.ptp(weights) > 0.0
    if weighting == "discrete":
        assert chi_square(weights, np.full(24, 1 / 24)) <= TINY.rho * (1 + 1e-9)


def test_without_outliers_it_is_a_plain_gan():
    gan = RobustGAN(pictures(), TINY.model_copy(update={"outlier_fraction": 0.0, "weighting": "network"}), 0, CPU)
    for number in range(1, 7):
        gan.step(number)
    assert (gan.final_weights() == 1.0).all()


def test_version_serves_distances_and_generates(tmp_path):
    entry = Registry()["robust-ot"]
    dataset = Dataset("images", pictures(channels=3, size=20), sample_ids=[f"p{i}" for i in range(24)])
    checkpoint = entry.method.train(dataset, TINY, LocalRun(tmp_path, seed=1))
    opened = Checkpoint(checkpoint.folder)
    tensors = opened.tensors()
    generator = Generator(TINY, opened.config.outputs["generator"]["channels"])
    generator.load_state_dict({k[10:]: v for k, v in tensors.items() if k.startswith("generator.")})
    fake = generate(generator, TINY, 5, 0, CPU)
    assert fake.shape == (5, 28, 28, 3) and fake.dtype == np.uint8
    assert float(tensors["sample_weights"].float().mean()) == pytest.approx(1.0, abs=1e-2)
    rows = list(csv.DictReader((tmp_path / "weights.csv").open()))
    assert [float(row["weight"]) for row in rows] == sorted(float(row["weight"]) for row in rows)
    assert {row["id"] for row in rows} == set(dataset.sample_ids)
    assert (tmp_path / "samples.png").exists() and (tmp_path / "lowest-weights.png").exists()
    method = entry.method.load(opened, CPU)
    assert method.predict([Sides(Side(np.eye(3)), Side(np.eye(3)))], Params())[0].distance == 0.0


def test_a_killed_training_ends_as_an_undisturbed_one(tmp_path, monkeypatch):
    monkeypatch.setattr("models.robust_ot.train.SAVE_EVERY", 5)
    entry, dataset = Registry()["robust-ot"], Dataset("images", pictures())
    whole = entry.method.train(dataset, TINY, LocalRun(tmp_path / "whole", seed=2)).tensors()
    with pytest.raises(Killed):
        entry.method.train(dataset, TINY, killed_after(LocalRun(tmp_path / "cut", seed=2), saves=2))
    resumed = entry.method.train(dataset, TINY, LocalRun(tmp_path / "cut", seed=2)).tensors()
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_what_cannot_be_trained_on_is_refused(tmp_path):
    entry = Registry()["robust-ot"]
    with pytest.raises(MethodError, match="fewer than a batch"):
        entry.method.train(Dataset("images", pictures(4)), TINY, LocalRun(tmp_path))
    with pytest.raises(MethodError, match="holds vectors"):
        entry.method.train(Dataset("vectors", np.zeros((9, 2), np.float32)), TINY, LocalRun(tmp_path))
