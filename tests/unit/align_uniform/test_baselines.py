import pytest
import torch

from models.align_uniform.baselines import HELD_OUT, RECIPES, Recipe, open_encoder, read_index, ship, train_encoder
from models.align_uniform.proof import Row, rank_correlations
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
    ship(recipe, network, 1.5, tmp_path)
    entry = read_index(tmp_path)[name]
    assert (entry.group, entry.supervised, entry.seconds) == (recipe.group, recipe.supervised, 1.5)
    opened = open_encoder(name, entry, tmp_path)
    images = torch.randint(0, 256, (20, 1, 28, 28), dtype=torch.uint8)
    expected = encode(network.encoder, images, device="cpu")
    # Half precision keeps three digits.
    assert torch.allclose(encode(opened.encoder, images, device="cpu"), expected, atol=3e-3 * expected.max().item())
    (tmp_path / f"{name}.safetensors").write_bytes(b"something else")
    with pytest.raises(CheckpointError, match="SHA-256"):
        open_encoder(name, entry, tmp_path)
    (tmp_path / f"{name}.safetensors").unlink()
    with pytest.raises(CheckpointError, match="is missing"):
        open_encoder(name, entry, tmp_path)


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
