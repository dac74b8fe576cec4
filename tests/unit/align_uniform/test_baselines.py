from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load

from models.align_uniform.baselines import initial, train_encoder, train_together
from models.align_uniform.proof import Row, rank_correlations
from models.align_uniform.recipes import HELD_OUT, RECIPES, Recipe
from models.align_uniform.shipping import from_bytes, open_encoder, read_index, ship, to_bytes
from models.core.checkpoint import CheckpointError
from models.core.encoders import encode
from models.core.run import LocalRun


@pytest.fixture(scope="module")
def enough(fashion):
    return fashion.select([*range(600), *range(HELD_OUT)])


@pytest.mark.parametrize("name", ["supervised-s0", "simclr-batch-32-s0"])
def test_an_encoder_is_trained_shipped_and_opened(enough, tmp_path, name):
    recipe = RECIPES[name]
    network = train_encoder(recipe, enough, LocalRun(tmp_path / "run"), steps=3)
    ship(recipe, network, steps=3, seconds=1.5, device="cpu", folder=tmp_path)
    entry = read_index(tmp_path)[name]
    assert (entry.group, entry.supervised, entry.steps) == (recipe.group, recipe.supervised, 3)
    opened = open_encoder(name, entry, tmp_path)
    images = torch.randint(0, 256, (20, 1, 28, 28), dtype=torch.uint8)
    expected = encode(network.encoder, images, device="cpu")
    # Eight bits keep a weight within 0.4% of the largest of its kernel.
    assert torch.allclose(encode(opened.encoder, images, device="cpu"), expected, atol=2e-2 * expected.max().item())
    (tmp_path / f"{name}.safetensors").write_bytes(b"something else")
    with pytest.raises(CheckpointError, match="SHA-256"):
        open_encoder(name, entry, tmp_path)
    (tmp_path / f"{name}.safetensors").unlink()
    with pytest.raises(CheckpointError, match="is missing"):
        open_encoder(name, entry, tmp_path)


def test_eight_bits_are_within_half_a_step_of_every_weight():
    generator = torch.Generator().manual_seed(0)
    tensors = {"kernel": torch.randn(6, 4, 3, 3, generator=generator), "bias": torch.randn(6, generator=generator)}
    tensors["kernel"][2] = 0
    packed = to_bytes(tensors)
    assert packed["kernel"].dtype == torch.int8 and packed["bias"].dtype == torch.float16
    found = from_bytes(packed)
    assert found.keys() == tensors.keys()
    step = tensors["kernel"].flatten(1).abs().amax(dim=1).view(-1, 1, 1, 1) / 127
    assert ((found["kernel"] - tensors["kernel"]).abs() <= 0.501 * step).all()
    assert torch.allclose(found["bias"], tensors["bias"], rtol=1e-3)


def test_encoders_trained_together_are_those_trained_alone(enough, tmp_path, monkeypatch):
    monkeypatch.setattr("models.align_uniform.baselines.training_data", lambda held_out: enough)
    names = ["align-uniform-batch-32-s0", "simclr-batch-32-s1"]
    for name in names:
        monkeypatch.setitem(RECIPES, name, replace(RECIPES[name], steps=1))
    together = train_together(names, tmp_path, 3, "cpu")
    assert [name for name, *_ in together] == names
    for name, weights, _, line in together:
        alone = train_encoder(RECIPES[name], enough, LocalRun(tmp_path / "alone", seed=RECIPES[name].seed), steps=3)
        assert line.startswith("step 3/3")
        for key, tensor in alone.state_dict().items():
            assert torch.equal(tensor, load(weights)[key]), key
    assert not torch.equal(initial(RECIPES[names[0]]).head[0].weight, initial(RECIPES[names[1]]).head[0].weight)


def test_supervision_learns_labels(enough, tmp_path):
    recipe = Recipe("supervised", 0, {"batch_size": 32, "width": 8}, supervised=True)
    run = LocalRun(tmp_path)
    train_encoder(recipe, enough, run, steps=40)
    points = [value for _, value in run.metrics["loss"]]
    assert points[-1] < points[0] - 0.3


def test_no_index_is_said(tmp_path):
    with pytest.raises(CheckpointError, match=r"index\.json is missing"):
        read_index(tmp_path)


def test_rank_correlations_leave_untrained_heads_out():
    rows = [Row(f"r{i}", "g", i / 10, 0, 0, 0, align=-i, uniform=i * i) for i in range(5)]
    rows += [Row("s", "supervised", 1, 0, 0, 0), Row("x", "random encoder", 0.9, 0, 0, 0, align=9, uniform=9)]
    found = rank_correlations(rows)
    assert found["encoders"] == 5
    assert found["align"] == pytest.approx(-1)
    assert found["uniform"] == pytest.approx(1)
    assert found["best_in_corner"] == 3


def test_partial_correlations_hold_the_other_metric_fixed():
    """Accuracy is minus the sum of two metrics that oppose each other: neither alone, both together."""
    generator = np.random.default_rng(0)
    align = np.linspace(0, 1, 60)
    uniform = -align + generator.normal(0, 0.2, 60)
    accuracy = -(align + uniform) + generator.normal(0, 0.02, 60)
    rows = [
        Row(f"r{i}", "g", *(float(value), 0, 0, 0), align=float(a), uniform=float(u))
        for i, (value, a, u) in enumerate(zip(accuracy, align, uniform, strict=True))
    ]
    found = rank_correlations(rows)
    assert abs(found["align"]) < 0.4
    assert found["align_given_uniform"] < -0.8 and found["uniform_given_align"] < -0.8
