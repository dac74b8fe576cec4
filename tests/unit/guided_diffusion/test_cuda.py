"""What runs on a CUDA device gives what the CPU gives."""

import numpy as np
import pytest
import torch

from models.core.outputs import Draw
from models.core.run import LocalRun
from models.guided_diffusion import fitting
from models.guided_diffusion.cells import Bench, measure_cells
from models.guided_diffusion.fidelity import precision_recall
from models.guided_diffusion.measuring import bits_per_dimension
from models.guided_diffusion.method import GuidedDiffusion
from models.guided_diffusion.plan import PLANS, cells_of
from models.guided_diffusion.schema import Params
from models.guided_diffusion.train import learn, prepare
from tests.unit.cuda import needs_cuda
from tests.unit.guided_diffusion.conftest import TINY, halves
from tests.unit.guided_diffusion.test_training import Fragile, KilledError, weights

pytestmark = needs_cuda
DRAWS = [Draw(label, seed) for label, seed in zip([0, 1, None, 1, 0, 0, None, 1], range(40, 48), strict=True)]


@pytest.fixture
def exact():
    """Products and convolutions in full float32."""
    kept = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = kept


def both(trained):
    return [GuidedDiffusion.load(trained[0], torch.device(name)) for name in ("cpu", "cuda")]


@pytest.mark.parametrize(
    "params", [Params(steps=8), Params(steps=6, eta=0.7), Params(steps=6, sampler="ddpm"), Params(guidance_scale=0)]
)
def test_the_same_pictures(exact, trained, params):
    here, there = (method.samples(DRAWS, params).cpu() for method in both(trained))
    assert torch.allclose(here, there, atol=2e-3)
    ours, theirs = (method.predict(DRAWS, params) for method in both(trained))
    for one, other in zip(ours, theirs, strict=True):
        assert np.abs(one.image.astype(int) - other.image.astype(int)).max() <= 1
        assert one.details["class_probability"] == pytest.approx(other.details["class_probability"], abs=2e-3)


def test_the_same_bound(exact, trained):
    data = halves(8)
    here, there = (
        bits_per_dimension(method.networks, data.inputs, data.labels, 100, 0, lambda share: None)
        for method in both(trained)
    )
    assert here.keys() == there.keys() == {"learned", "large", "small"}
    # The noise is each device's own.
    assert all(bits.mean() == pytest.approx(there[kind].mean(), rel=0.1) for kind, bits in here.items())


def test_the_same_neighbours():
    random = np.random.default_rng(0)
    a, b = random.normal(size=(300, 8)), random.normal(size=(300, 8)) + 0.5
    assert precision_recall(a, b, device="cuda") == precision_recall(a, b)


def test_half_precision_samples_nearly_the_same(tmp_path, trained):
    _, method = both(trained)
    values = {"samples": 64, "seeds": (0,), "other_seeds": (0,), "guides": ("blind",), "ddpm_steps": (5,), "batch": 32}
    plan = PLANS["small"].__class__(**{**vars(PLANS["small"]), **values})
    half = plan.__class__(**{**vars(plan), "precision": "bfloat16"})
    cells = [cell for cell in cells_of(plan, 64) if cell.params.steps <= 25]
    exact, fast = (Bench(method.networks, halves(64), chosen) for chosen in (plan, half))
    for cell in cells[:2]:
        assert (exact.samples(cell, lambda s: None) - fast.samples(cell, lambda s: None)).abs().mean() < 0.03
    found = measure_cells(fast, cells, LocalRun(tmp_path, device="cuda"))
    assert [m.cell for m in found] == cells
    assert all(np.isfinite(m.quality.fid) and m.device != "CPU" for m in found)


@pytest.mark.parametrize("time_sampling", ["uniform", "loss-second-moment"])
def test_a_killed_training_goes_on(tmp_path, monkeypatch, dataset, time_sampling):
    monkeypatch.setitem(fitting.SAVE_EVERY, "cuda", 4)
    changes = {"steps": 12, "classifier_steps": 8, "judge_steps": 8, "batch_size": 8, "held_out": 20, "crop": 1,
               "flip": True, "time_sampling": time_sampling}  # fmt: skip
    config = TINY.model_copy(update=changes)
    material = prepare(dataset, config, 1)
    expected = weights(learn(config, material, LocalRun(tmp_path / "whole", seed=1, device="cuda"))[0])
    fragile = Fragile(tmp_path / "killed", 4)
    fragile.device = "cuda"
    with pytest.raises(KilledError):
        learn(config, material, fragile)
    found = weights(learn(config, material, LocalRun(tmp_path / "killed", seed=1, device="cuda"))[0])
    # Sums on the device are not taken in a fixed order, so that the result is not the same bit for bit.
    assert all(torch.allclose(found[name], value, atol=2e-2) for name, value in expected.items())
