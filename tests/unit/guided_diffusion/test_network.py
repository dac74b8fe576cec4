"""Shapes, parameters and beginnings of the networks."""

import pytest
import torch

from models.guided_diffusion.network import build_classifier, build_unet
from models.guided_diffusion.schema import PRESETS, Config

SMALL = Config(image_size=8, width=8, multipliers=[1, 2], attention=[4], head_channels=8, groups=4, classifier_width=8)


def test_the_preset_has_the_published_plan():
    config = PRESETS["cpu"]
    assert sum(p.numel() for p in build_unet(config, 1, 10).parameters()) == 1_371_650
    assert sum(p.numel() for p in build_classifier(config, 1, 10).parameters()) == 561_546


def test_a_fresh_network_predicts_nothing():
    torch.manual_seed(0)
    network = build_unet(SMALL, 3, 4)
    x = torch.randn(5, 3, 8, 8)
    output = network(x, torch.arange(5), torch.tensor([0, 1, 2, 3, 4]))
    assert output.shape == (5, 6, 8, 8)
    assert torch.equal(output, torch.zeros_like(output))
    assert (output[:, :3] - torch.randn(x.shape)).square().mean().item() == pytest.approx(1, abs=0.1)


def test_every_parameter_learns():
    torch.manual_seed(0)
    for network, inputs in (
        (build_unet(SMALL, 1, 4), (torch.randn(4, 1, 8, 8), torch.arange(4), torch.arange(4))),
        (build_classifier(SMALL, 1, 4), (torch.randn(4, 1, 8, 8), torch.arange(4))),
    ):
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
        network(*inputs).square().sum().backward()
        assert all(
            parameter.grad is not None and parameter.grad.abs().sum() > 0
            for parameter in network.parameters()
            if parameter.ndim > 1
        )


def test_pictures_of_a_batch_do_not_mix():
    torch.manual_seed(0)
    classifier = build_classifier(SMALL, 1, 4).eval()
    x, t = torch.randn(6, 1, 8, 8), torch.tensor([0, 100, 200, 300, 400, 500])
    together = classifier(x, t)
    for position in range(6):
        alone = classifier(x[position : position + 1], t[position : position + 1])
        assert torch.allclose(together[position], alone[0], atol=1e-5)


@pytest.mark.parametrize(("field", "value"), [("image_size", 30), ("width", 20)])
def test_what_does_not_fit_is_named(field, value):
    with pytest.raises(ValueError, match=field):
        Config(**{field: value})
