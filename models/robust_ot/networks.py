"""Networks of the robust Wasserstein GAN: generator, critic and weights network (Balaji et al. 2020, appendix)."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.robust_ot.schema import Config

FLOOR = 1e-4


class Generator(nn.Module):
    """DCGAN: latent vectors float32 ``(N, z)`` to pictures in [-1, 1], ``(N, channels, size, size)``."""

    def __init__(self, config: Config, channels: int) -> None:
        super().__init__()
        doublings = _doublings(config.size)
        self.start = config.size >> doublings
        widths = [config.width << step for step in range(doublings, -1, -1)]
        self.widest = widths[0]
        self.project = nn.Linear(config.latent, widths[0] * self.start**2)
        layers: list[nn.Module] = [nn.BatchNorm2d(widths[0]), nn.ReLU()]
        for wide, narrow in pairwise(widths):
            layers += [nn.ConvTranspose2d(wide, narrow, 4, 2, 1), nn.BatchNorm2d(narrow), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], channels, 3, padding=1), nn.Tanh())

    def forward(self, latent: Tensor) -> Tensor:
        """Pictures of ``latent``."""
        start: Tensor = self.layers(self.project(latent).view(-1, self.widest, self.start, self.start))
        return start


class Critic(nn.Module):
    """Strided convolutions without normalisation: pictures ``(N, C, size, size)`` to scores ``(N,)``."""

    def __init__(self, config: Config, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        size: int = config.size
        before = channels
        for step in range(_doublings(config.size) + 1):
            layers += [nn.Conv2d(before, config.width << step, 4, 2, 1), nn.LeakyReLU(0.2)]
            size, before = size // 2, config.width << step
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(before * size**2, 1))

    def forward(self, pictures: Tensor) -> Tensor:
        """Scores of ``pictures``."""
        scores: Tensor = self.layers(pictures)
        return scores[:, 0]


class WeightsNetwork(nn.Module):
    """Convolutions and pooling: pictures ``(N, C, size, size)`` to unnormalised weights ``(N,)``, at least 1e-4."""

    def __init__(self, config: Config, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        size: int = config.size
        before = channels
        for step in range(3):
            layers += [nn.Conv2d(before, config.width << step, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
            size, before = size // 2, config.width << step
        self.layers = nn.Sequential(*layers, nn.Flatten())
        self.head = nn.Linear(before * size**2, 1)
        # All weights start at one: ReLU units that start below zero would leave the network without a gradient.
        nn.init.zeros_(self.head.weight)
        nn.init.ones_(self.head.bias)

    def forward(self, pictures: Tensor) -> Tensor:
        """Unnormalised weights of ``pictures``."""
        return F.relu(self.head(self.layers(pictures))[:, 0]) + FLOOR


def _doublings(size: int) -> int:
    """Doublings between the generator's first map (7 or 4 wide) and its picture."""
    return 2 if size == 28 else 3


def normalised(raw: Tensor) -> Tensor:
    """Weights with mean one over the batch."""
    return raw * (len(raw) / raw.sum())


def divergence(weights: Tensor) -> Tensor:
    """``1/2 mean (w - 1)^2``."""
    return 0.5 * (weights - 1.0).square().mean()


def gradient_penalty(critic: Critic, real: Tensor, fake: Tensor, generator: torch.Generator) -> Tensor:
    """``E (|grad D(x)| - 1)^2`` at random points between real and generated pictures (two-sided)."""
    share = torch.rand((len(real), 1, 1, 1), generator=generator, device=real.device)
    between = (share * real + (1.0 - share) * fake).requires_grad_(True)
    (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    penalty: Tensor = (torch.linalg.vector_norm(slope.flatten(1), dim=1) - 1.0).square().mean()
    return penalty
