"""Training: what it leaves, that a killed one ends the same, and what it refuses."""

import numpy as np
import pytest
import torch
import torch._inductor.config
from PIL import Image

from models.core.dataset import Dataset
from models.core.method import MethodError
from models.core.outputs import Draw
from models.core.run import LocalRun
from models.core.trainer_options import SharpnessAware
from models.guided_diffusion import fitting, versions
from models.guided_diffusion.method import GuidedDiffusion
from models.guided_diffusion.schema import Params
from models.guided_diffusion.train import learn, prepare
from models.guided_diffusion.versions import write_version
from tests.unit.guided_diffusion.conftest import TINY, halves

SHORT = TINY.model_copy(update={"steps": 12, "classifier_steps": 8, "judge_steps": 8, "batch_size": 8})


class KilledError(Exception):
    pass


class Fragile(LocalRun):
    """Dies at its n-th resume point, after it was written."""

    def __init__(self, folder, dies_at):
        super().__init__(folder, seed=1)
        self.left = dies_at

    def save_state(self, tensors, meta):
        super().save_state(tensors, meta)
        self.left -= 1
        if self.left == 0:
            raise KilledError


def weights(learners):
    return {
        f"{learner.name}.{name}": value for learner in learners for name, value in learner.kept.state_dict().items()
    }


@pytest.mark.parametrize("time_sampling", ["uniform", "loss-second-moment"])
def test_a_killed_training_ends_the_same(tmp_path, monkeypatch, dataset, time_sampling):
    monkeypatch.setitem(fitting.SAVE_EVERY, "cpu", 4)
    config = SHORT.model_copy(update={"time_sampling": time_sampling})
    material = prepare(dataset, config, 1)
    expected = weights(learn(config, material, LocalRun(tmp_path / "whole", seed=1))[0])
    for dies_at in (1, 3, 4, 6):
        folder = tmp_path / f"killed-{dies_at}"
        with pytest.raises(KilledError):
            learn(config, material, Fragile(folder, dies_at))
        found = weights(learn(config, material, LocalRun(folder, seed=1))[0])
        assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_a_version_and_its_artifacts(trained):
    checkpoint, run = trained
    assert checkpoint.config.class_names == ["left", "right"]
    assert checkpoint.config.input.kind == "class"
    assert {key: checkpoint.config.outputs[key] for key in ("height", "width", "channels")} == {
        "height": 8, "width": 8, "channels": 1,
    }  # fmt: skip
    with Image.open(run.folder / "samples.png") as picture:
        assert min(picture.size) > 30
    names = {name for name in run.metrics if name.endswith("_loss")}
    assert names == {"denoiser_loss", "classifier_loss", "judge_loss"}
    losses = [value for _, value in run.metrics["denoiser_mse"]]
    assert losses[-1] < losses[0] < 1.2


def test_own_labels_steer_the_shipped_denoiser(tmp_path, monkeypatch, trained):
    monkeypatch.setattr(versions, "SHIPPED", trained[0].folder)
    data = halves(200)
    upside = Dataset("images", np.swapaxes(data.inputs, 1, 2), data.labels, ["upper", "lower"])
    config = TINY.model_copy(update={"target": "classifier"})
    checkpoint = write_version(upside, config, LocalRun(tmp_path))
    assert checkpoint.config.outputs["conditional"] is False
    theirs, ours = trained[0].tensors(), checkpoint.tensors()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items() if name.startswith("denoiser."))
    method = GuidedDiffusion.load(checkpoint, torch.device("cpu"))
    (output,) = method.predict([Draw(1, 0)], Params(steps=8))
    assert output.image.shape == (8, 8, 1)
    with pytest.raises(MethodError, match="width: the shipped denoiser has 8"):
        write_version(upside, config.model_copy(update={"width": 16}), LocalRun(tmp_path / "wider"))


@pytest.mark.parametrize("options", [SharpnessAware(kind="sam", rho=0.1), SharpnessAware(kind="sam", m=4)])
def test_the_classifier_may_be_trained_with_sharpness_awareness(tmp_path, monkeypatch, dataset, options):
    monkeypatch.setitem(fitting.SAVE_EVERY, "cpu", 4)
    config = SHORT.model_copy(update={"classifier_sharpness_aware": options})
    material = prepare(dataset, config, 1)
    learners, _ = learn(config, material, LocalRun(tmp_path / "whole", seed=1))
    assert [learner.optimizer.perturbed_steps for learner in learners] == [0, 8, 0]
    expected = weights(learners)
    plain = weights(learn(SHORT, material, LocalRun(tmp_path / "plain", seed=1))[0])
    changed = {name.partition(".")[0] for name, value in expected.items() if not torch.equal(value, plain[name])}
    assert changed == {"classifier"}
    with pytest.raises(KilledError):
        learn(config, material, Fragile(tmp_path / "killed", 4))
    found = weights(learn(config, material, LocalRun(tmp_path / "killed", seed=1))[0])
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_a_missing_compiler_is_named(tmp_path, dataset):
    with (
        torch._inductor.config.patch({"cpp.cxx": (None, "/nowhere/c++")}),
        pytest.raises(MethodError, match=r"^compile: .*C\+\+ compiler"),
    ):
        write_version(dataset, SHORT.model_copy(update={"compile": True, "multipliers": [1]}), LocalRun(tmp_path))


def test_held_out_pictures_are_measured(tmp_path, dataset):
    config = SHORT.model_copy(update={"held_out": 20})
    assert len(prepare(dataset, config, 0).images) == 180
    run = LocalRun(tmp_path)
    learn(config, prepare(dataset, config, 0), run)
    assert {"denoiser_held_out_mse", "classifier_held_out_accuracy_t0", "judge_held_out_accuracy"} <= run.metrics.keys()


def test_samples_are_drawn_from_the_average(trained):
    checkpoint, run = trained
    arrays, _ = run.load_state()
    kept = checkpoint.tensors()["denoiser.output.weight"].float().numpy()
    assert np.allclose(kept, arrays["module/average/output.weight"], atol=1e-3)
    assert not np.allclose(kept, arrays["module/denoiser/output.weight"], atol=1e-4)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (Dataset("vectors", np.zeros((30, 4), np.float32)), "vectors"),
        (Dataset("images", np.zeros((30, 8, 8, 1), np.uint8)), "no labels"),
        (halves(10), "at least 20"),
    ],
)
def test_unfit_data_is_refused(tmp_path, data, message):
    with pytest.raises(MethodError, match=message):
        write_version(data, SHORT, LocalRun(tmp_path))
