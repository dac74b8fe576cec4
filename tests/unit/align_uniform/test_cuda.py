"""What must also hold on a GPU: the same vectors as on the CPU, and trainings that run, stop and go on."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load

from models.align_uniform.baselines import train_together
from models.align_uniform.recipes import RECIPES
from models.align_uniform.schema import Config
from models.core.augment import ViewPolicy, augment
from models.core.dataset import Dataset
from models.core.run import Cancelled, LocalRun
from tests.unit.align_uniform.conftest import Interrupted
from tests.unit.cuda import needs_cuda

pytestmark = needs_cuda
TEXTS = [f"word{i % 7} thing{i % 11} and part{i % 13} of the whole" for i in range(200)]


@pytest.mark.parametrize("space", ["penultimate", "projection"])
def test_the_shipped_checkpoint_gives_the_vectors_of_the_cpu(entry, fashion, space):
    checkpoint = entry.shipped()
    found = {}
    for device in ("cpu", "cuda"):
        model = entry.method.load(checkpoint, torch.device(device))
        found[device] = np.asarray(model.predict(fashion.inputs[:300], entry.params(space=space)))
    # Convolutions on a GPU round to TF32, ten bits.
    assert (found["cpu"] * found["cuda"]).sum(axis=1).min() > 0.9999
    assert found["cuda"] == pytest.approx(found["cpu"], abs=5e-3)


def test_a_seed_on_the_cpu_means_the_same_views_on_the_gpu(fashion):
    images = torch.from_numpy(fashion.inputs[:40]).permute(0, 3, 1, 2)
    views = [augment(part, ViewPolicy(28), torch.Generator().manual_seed(3)).cpu() for part in (images, images.cuda())]
    torch.testing.assert_close(*views, atol=1e-4, rtol=1e-4)
    drawn = augment(images.cuda(), ViewPolicy(28), torch.Generator("cuda").manual_seed(3))
    assert drawn.is_cuda and 0 <= drawn.min() <= drawn.max() <= 1


@pytest.mark.parametrize("change", [{}, {"optimizer": "sgd"}, {"sharpness_aware": {"kind": "sam", "rho": 0.05}}])
def test_pictures_are_trained_on(entry, fashion, tiny, tmp_path, change):
    config = Config.model_validate({**tiny.model_dump(), **change})
    run = LocalRun(tmp_path, device="cuda")
    checkpoint = entry.method.train(fashion, config, run)
    losses = [value for _, value in run.metrics["loss"]]
    assert losses[-1] < losses[0]
    assert checkpoint.tensors()["penultimate_axes"].shape == (16, 16)


def test_an_interrupted_training_goes_on(entry, fashion, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr("models.align_uniform.train.SAVE_SECONDS", 0.0)
    whole = entry.method.train(fashion, tiny, LocalRun(tmp_path / "whole", device="cuda")).tensors()
    with pytest.raises(Cancelled):
        entry.method.train(fashion, tiny, Interrupted(tmp_path / "parts", device="cuda"))
    assert (tmp_path / "parts" / "state.npz").exists()
    resumed = entry.method.train(fashion, tiny, LocalRun(tmp_path / "parts", device="cuda")).tensors()
    # Sums of a GPU are in no fixed order, and a few steps of Adam make more of it.
    for name in ("head.0.weight", "encoder.layers.0.weight"):
        assert torch.nn.functional.cosine_similarity(whole[name].flatten(), resumed[name].flatten(), dim=0) > 0.99


def test_texts_are_trained_on_and_measured(entry, tmp_path):
    labels = np.arange(len(TEXTS)) % 7
    dataset = Dataset("text", TEXTS, labels, [str(i) for i in range(7)], name="texts")
    config = Config(epochs=3, batch_size=64, feat_dim=16, word_features=16, word_buckets=1024, lr=1e-3)
    checkpoint = entry.method.train(dataset, config, LocalRun(tmp_path, device="cuda"))
    vectors = [
        np.asarray(entry.method.load(checkpoint, torch.device(device)).predict(TEXTS, entry.params()))
        for device in ("cpu", "cuda")
    ]
    assert vectors[1] == pytest.approx(vectors[0], abs=1e-4)
    figures = entry.method.evaluate(checkpoint, LocalRun(tmp_path / "measured", device="cuda"), dataset).figures
    assert {"L_align", "L_uniform"} <= {figure.name for figure in figures}


def test_encoders_are_trained_side_by_side(fashion, tmp_path, monkeypatch):
    enough = fashion.select([*range(600), *range(512)])
    monkeypatch.setattr("models.align_uniform.baselines.training_data", lambda held_out: enough)
    names = ["align-uniform-batch-32-s0", "simclr-batch-32-s0", "supervised-s0"]
    for name in names:
        monkeypatch.setitem(RECIPES, name, replace(RECIPES[name], steps=20))
    for name, weights, _, line in train_together(names, tmp_path, 2, "cuda"):
        assert line.startswith("step 40/40"), name
        assert all(tensor.isfinite().all() for tensor in load(weights).values())
        assert RECIPES[name].seed == 0
