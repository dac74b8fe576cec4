"""Requests: seeds, batches, classes, previews and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from models.core.method import MethodError
from models.core.outputs import Draw
from models.guided_diffusion.method import GuidedDiffusion
from models.guided_diffusion.schema import Params, passes

QUICK = Params(steps=8)


@pytest.fixture(scope="module")
def method(trained):
    return GuidedDiffusion.load(trained[0], torch.device("cpu"))


@pytest.mark.parametrize(
    "params", [QUICK, Params(steps=6, eta=0.7), Params(steps=6, sampler="ddpm"), Params(steps=6, guidance_scale=0)]
)
def test_a_seed_gives_its_picture_in_any_batch(method, params):
    draws = [Draw(label, seed) for label, seed in zip([0, 1, None, 1, 0, 0, None, 1], range(40, 48), strict=True)]
    together = method.samples(draws, params)
    for position in (0, 2, 5, 7):
        alone = method.samples(draws[position : position + 1], params)
        assert torch.allclose(together[position], alone[0], atol=1e-5)
    images = [output.image for output in method.predict(draws, params)]
    again = [output.image for output in method.predict(draws[::-1], params)][::-1]
    assert all(np.array_equal(one, other) for one, other in zip(images, again, strict=True))


def test_eta_is_the_versions_own_where_a_request_names_none(trained):
    checkpoint, _ = trained
    draws = [Draw(0, 1), Draw(1, 2)]
    still = GuidedDiffusion.load(checkpoint, torch.device("cpu"))
    noisy = GuidedDiffusion(replace(still.networks, eta=1.0))
    (plain, zero, one), (own, asked) = (
        [method.samples(draws, Params(steps=6, eta=eta)) for eta in etas]
        for method, etas in ((still, (None, 0, 1)), (noisy, (None, 0)))
    )
    assert torch.equal(plain, zero) and torch.equal(asked, zero)
    assert torch.equal(own, one) and not torch.allclose(own, zero, atol=0.1)


def test_the_largest_seed(method):
    (output,) = method.predict([Draw(0, 2**63 - 1)], QUICK)
    assert output.seed == 2**63 - 1
    assert output.image.shape == (8, 8, 1)
    assert output.image.dtype == np.uint8


def test_classes_are_what_was_asked_for(method):
    draws = [Draw(position % 2, position) for position in range(40)]
    outputs = method.predict(draws, Params(steps=20, guidance_scale=2))
    light_left = [output.image[:, :4].mean() > output.image[:, 4:].mean() for output in outputs]
    right = np.mean([left == (draw.class_index == 0) for left, draw in zip(light_left, draws, strict=True)])
    assert right > 0.9
    assert all(0 <= output.details["class_probability"] <= 1 for output in outputs)
    assert outputs[0].details["steps"] == 20


def test_guidance_steers_a_denoiser_that_is_told_nothing(method):
    draws = [Draw(position % 2, position) for position in range(60)]

    def right(scale):
        outputs = method.predict(draws, Params(steps=20, guidance_scale=scale, unconditional=True))
        lefts = [output.image[:, :4].mean() > output.image[:, 4:].mean() for output in outputs]
        return np.mean([left == (draw.class_index == 0) for left, draw in zip(lefts, draws, strict=True)])

    assert right(8) > right(0) + 0.15


def test_scale_zero_never_asks_the_classifier(method, monkeypatch):
    expected = method.samples([Draw(1, 5)], Params(steps=8, guidance_scale=0))

    def fail(*_):
        raise AssertionError

    monkeypatch.setattr(method.networks.classifier, "forward", fail)
    assert torch.equal(method.samples([Draw(1, 5)], Params(steps=8, guidance_scale=0)), expected)
    assert torch.isfinite(method.samples([Draw(None, 5)], QUICK)).all()
    with pytest.raises(AssertionError):
        method.samples([Draw(1, 5)], QUICK)


def test_previews_then_the_pictures(method):
    draws = [Draw(0, 1), Draw(1, 2)]
    *previews, final = list(method.stream(draws, QUICK))
    fractions = [outputs[0].details["fraction"] for outputs in previews]
    assert fractions == [0.25, 0.5, 0.75]
    assert all(len(outputs) == 2 for outputs in previews)
    assert "fraction" not in final[0].details
    for one, other in zip(final, method.predict(draws, QUICK), strict=True):
        assert np.array_equal(one.image, other.image)


def test_what_cannot_be_drawn_is_named(method):
    with pytest.raises(MethodError, match="class_label"):
        method.predict([Draw(2, 0)], QUICK)
    with pytest.raises(MethodError, match="steps"):
        method.predict([Draw(0, 0)], Params(steps=101))


@pytest.mark.parametrize("interval", [(0.5, 0.2), (-0.1, 1), (0, 1.1)])
def test_an_interval_is_ordered_and_within_the_process(interval):
    with pytest.raises(ValueError, match="low <= high"):
        Params(guidance_interval=interval)


def test_passes_are_pictures_times_steps():
    assert passes(8, Params(steps=250)) == 2000
