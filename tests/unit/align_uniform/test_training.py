import numpy as np
import pytest
import torch
from pydantic import ValidationError

from models.align_uniform.network import EmbeddingNetwork, open_network, principal_axes
from models.align_uniform.schema import PRESETS, Config
from models.align_uniform.train import batches, learning_rate, objective
from models.core.dataset import Dataset
from models.core.method import MethodError
from models.core.run import Cancelled, LocalRun
from models.core.trainer_options import SharpnessAware
from tests.unit.align_uniform.conftest import Interrupted


def weights(checkpoint):
    return checkpoint.tensors()


def test_training_learns_and_reports(entry, fashion, tiny, tmp_path):
    stages = []
    run = LocalRun(tmp_path, seed=3, report=lambda fraction, stage, message: stages.append((fraction, stage, message)))
    checkpoint = entry.method.train(fashion, tiny.model_copy(update={"epochs": 8}), run)
    losses = [value for _, value in run.metrics["loss"]]
    assert losses[-1] < losses[0] - 0.3
    assert run.metrics["held_out_align"][0][0] == 1
    assert np.isfinite([value for _, value in run.metrics["held_out_uniform"]]).all()
    fractions = [fraction for fraction, _, _ in stages]
    assert fractions == sorted(fractions)
    assert "s left" in next(message for _, stage, message in stages if stage == "train")
    assert checkpoint.config.outputs["dimensions"] == 16
    assert checkpoint.config.data_sha256 == fashion.sha256
    found = {figure.name: figure.value for figure in checkpoint.figures.figures}
    assert 0 < found["L_align"] < 1.5
    assert found["L_uniform"] < -1.5, "the batch norms' averages of a short training lag behind its weights"


SAM = SharpnessAware(kind="sam", rho=0.05)


@pytest.mark.parametrize(
    "change",
    [{"optimizer": "adam"}, {"optimizer": "sgd"}, {"sharpness_aware": SAM}],
    ids=["adam", "sgd", "sharpness-aware"],
)
def test_an_interrupted_training_continues_bit_for_bit(entry, fashion, tiny, tmp_path, monkeypatch, change):
    monkeypatch.setattr("models.align_uniform.train.SAVE_SECONDS", 0.0)
    config = tiny.model_copy(update=change)
    whole = entry.method.train(fashion, config, LocalRun(tmp_path / "whole", seed=1))
    with pytest.raises(Cancelled):
        entry.method.train(fashion, config, Interrupted(tmp_path / "parts", seed=1))
    assert (tmp_path / "parts" / "state.npz").exists()
    resumed = entry.method.train(fashion, config, LocalRun(tmp_path / "parts", seed=1))
    expected, found = weights(whole), weights(resumed)
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        assert torch.equal(tensor, found[name]), name


def test_sharpness_aware_steps_change_the_encoder_and_a_radius_of_zero_does_not(entry, fashion, tiny, tmp_path):
    found = {}
    for name, options in {"none": SharpnessAware(), "zero": SAM.model_copy(update={"rho": 0.0}), "sam": SAM}.items():
        config = tiny.model_copy(update={"epochs": 1, "sharpness_aware": options})
        found[name] = entry.method.train(fashion, config, LocalRun(tmp_path / name)).config.weights_sha256
    assert found["none"] == found["zero"] != found["sam"]


def test_seeds_differ(entry, fashion, tiny, tmp_path):
    config = tiny.model_copy(update={"epochs": 1})
    first, second = (entry.method.train(fashion, config, LocalRun(tmp_path / str(s), seed=s)) for s in (0, 1))
    assert first.config.weights_sha256 != second.config.weights_sha256


@pytest.mark.parametrize("side", [20, 40])
def test_colour_pictures_of_many_sizes(entry, tmp_path, side):
    generator = np.random.default_rng(0)
    pictures = [generator.integers(0, 256, (side + i % 7, side + i % 3, 3), dtype=np.uint8) for i in range(80)]
    config = Config(width=4, feat_dim=8, epochs=1, batch_size=32, image_size=16)
    checkpoint = entry.method.train(Dataset("images", pictures), config, LocalRun(tmp_path))
    assert checkpoint.config.input.shape == (16, 16, 3)
    vectors = entry.method.load(checkpoint, torch.device("cpu")).predict(
        Dataset("images", pictures).images(checkpoint.config.input)[:3], entry.params()
    )
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)


def test_fewer_pictures_than_a_batch(entry, fashion, tmp_path):
    config = Config(width=4, epochs=2, batch_size=256)
    run = LocalRun(tmp_path)
    entry.method.train(fashion.select(range(70)), config, run)
    assert run.metrics["loss"][-1][0] == 2


def test_bad_data_is_named(entry, fashion, tiny, tmp_path):
    run = LocalRun(tmp_path)
    with pytest.raises(MethodError, match="at least 64 pictures"):
        entry.method.train(fashion.select(range(10)), tiny, run)
    with pytest.raises(MethodError, match="holds vectors"):
        entry.method.train(Dataset("vectors", np.zeros((100, 3), dtype=np.float32)), tiny, run)


def test_a_diverging_training_says_so(entry, fashion, tiny, tmp_path):
    config = tiny.model_copy(update={"optimizer": "sgd", "lr": 1e30})
    with pytest.raises(MethodError, match=r"diverged at step .* a smaller lr"):
        entry.method.train(fashion, config, LocalRun(tmp_path))


def test_bad_configurations():
    with pytest.raises(ValidationError, match="nothing to learn"):
        Config(align_weight=0, uniform_weight=0)
    with pytest.raises(ValidationError, match="36 pixels"):
        Config(encoder="small-alexnet", image_size=28)
    with pytest.raises(ValidationError, match="uniform_weight"):
        Config(uniform_weight=-1)


def test_objective_is_the_weighted_sum():
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.nn.functional.normalize(torch.randn(8, 4, generator=generator), dim=1) for _ in range(2))
    config = Config(align_weight=2, uniform_weight=0.5, contrastive_weight=3, temperature=0.2)
    total, parts = objective(x, y, config)
    parts = {name: value.item() for name, value in parts.items()}
    expected = 2 * parts["align"] + 0.5 * parts["uniform"] + 3 * parts["contrastive"]
    assert total.item() == pytest.approx(expected, rel=1e-6)
    _, joint = objective(x, y, config.model_copy(update={"uniform_within": "joint"}))
    assert joint["uniform"].item() != parts["uniform"]


def test_epochs_are_permutations_that_depend_on_seed_and_epoch():
    first, again, second = batches(100, 32, 0, 5), batches(100, 32, 0, 5), batches(100, 32, 1, 5)
    assert torch.equal(torch.cat(first), torch.cat(again))
    assert not torch.equal(torch.cat(first), torch.cat(second))
    assert len(torch.cat(first).unique()) == 96


def test_schedules():
    steps = Config(schedule="steps", lr=1.0)
    assert [learning_rate(steps, step, 200) for step in (0, 154, 155, 170, 185)] == pytest.approx(
        [1, 1, 0.1, 0.01, 0.001]
    )
    cosine = Config(schedule="cosine", lr=1.0)
    assert [learning_rate(cosine, step, 100) for step in (0, 50)] == pytest.approx([1, 0.5])


def test_the_papers_preset():
    paper = PRESETS["paper"]
    assert paper.learning_rate == pytest.approx(0.36)
    network = EmbeddingNetwork(paper, 3).eval()
    with torch.inference_mode():
        penultimate, points = network.features(torch.rand(2, 3, 64, 64))
    assert penultimate.shape == (2, 4096)
    assert points.shape == (2, 128)
    assert points.norm(dim=1).tolist() == pytest.approx([1, 1], abs=1e-5)


def test_principal_axes_are_orthogonal_and_ordered():
    features = torch.randn(400, 5, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 5, 2, 0.1, 3])
    axes = principal_axes(features)
    assert torch.allclose(axes.T @ axes, torch.eye(5), atol=1e-5)
    shares = (torch.nn.functional.normalize(features, dim=1) @ axes).square().mean(0)
    assert shares.tolist() == sorted(shares.tolist(), reverse=True)


def test_the_checkpoint_holds_the_trained_network(entry, fashion, tiny, tmp_path):
    checkpoint = entry.method.train(fashion, tiny.model_copy(update={"epochs": 1}), LocalRun(tmp_path))
    network, spec = open_network(checkpoint)
    assert spec.shape == (28, 28, 1)
    assert not network.training
    assert not torch.equal(network.penultimate_axes, torch.eye(16))
