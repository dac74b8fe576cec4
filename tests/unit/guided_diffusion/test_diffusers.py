"""The same weights in diffusers' U-Net give the same noise and, by its DDIM, the same pictures."""

import pytest
import torch

from models.guided_diffusion.network import build_unet
from models.guided_diffusion.process import Process
from models.guided_diffusion.sampler import Denoise, ddim_step
from models.guided_diffusion.schedule import Schedule, strided
from models.guided_diffusion.schema import Config, Params
from tests.benchmarks.peers.diffusers_unet import build_peer, copy_weights, draw, scheduler

CONFIG = Config(image_size=8, width=16, multipliers=[1, 2], attention=[4], head_channels=8, groups=4)


@pytest.fixture
def pair():
    torch.manual_seed(0)
    ours, peer = build_unet(CONFIG, 1, 4).eval(), build_peer(CONFIG, 1, 4)
    for parameter in ours.parameters():
        if not parameter.any():  # the layers that begin as zero
            torch.nn.init.normal_(parameter, std=0.05)
    copy_weights(ours, peer)
    return ours, peer


def test_the_networks_agree(pair):
    ours, peer = pair
    x, t, labels = torch.randn(6, 1, 8, 8), torch.tensor([0, 10, 250, 500, 900, 999]), torch.tensor([0, 1, 2, 3, 4, 0])
    with torch.inference_mode():
        assert torch.allclose(ours(x, t, labels), peer(x, t, class_labels=labels).sample, atol=1e-5)


def test_ddim_agrees(pair):
    ours, peer = pair
    schedule = Schedule.make("linear", 1000)
    process = Process(schedule.respace(strided(1000, 25)))
    noise, labels = torch.randn(4, 1, 8, 8), torch.tensor([0, 1, 2, 4])
    predict, params = Denoise(ours, labels), Params(guidance_scale=0)
    x = noise
    with torch.inference_mode():
        for index in reversed(range(25)):
            t = torch.full((4,), index)
            x, _ = ddim_step(process, predict(x, process.timesteps[t]), x, index, None, lambda: noise, params)
    assert torch.allclose(x, draw(peer, scheduler(schedule), noise, labels, 25), atol=1e-4)
