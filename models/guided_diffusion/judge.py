"""The judge: a small classifier of clean pictures that shares nothing with the one that guides.

Its 64 features are what FID, precision and recall are measured on; its class probabilities say how consistent a
picture is with the class that was asked for.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.core.inputs import Float32, Float64, UInt8

FEATURES = 64
SPATIAL_CHANNELS = 7
_AT_ONCE = 500


class Judge(nn.Module):
    """Three convolutions with batch norms over a layer of 64 features."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_convolution(channels, 32), nn.MaxPool2d(2), *_convolution(32, 64), nn.MaxPool2d(2), *_convolution(64, 64)
        )
        self.features = nn.Linear(2 * 64, FEATURES)
        self.logits = nn.Linear(FEATURES, classes)

    def embed(self, x: Tensor) -> Tensor:
        """Features ``(B, 64)`` of pictures in [-1, 1], ``(B, C, H, W)``: mean and maximum of each map, mixed."""
        maps = self.body(x)
        pooled = torch.cat([maps.mean(dim=(2, 3)), maps.amax(dim=(2, 3))], dim=1)
        return F.relu(self.features(pooled))

    def forward(self, x: Tensor) -> Tensor:
        """Class logits ``(B, classes)``."""
        logits: Tensor = self.logits(self.embed(x))
        return logits


@dataclass(frozen=True, eq=False)
class Judgement:
    """What the judge sees in N pictures: features float64 ``(N, 64)``, probabilities float32 ``(N, classes)``."""

    features: Float64
    probabilities: Float32


def judge_pictures(judge: Judge, pictures: UInt8) -> Judgement:
    """Features and class probabilities of uint8 ``(N, H, W, C)``."""
    features, probabilities = [], []
    with torch.inference_mode():
        for x in _batches(judge, pictures):
            found = judge.embed(x)
            features.append(found.double().cpu().numpy())
            probabilities.append(judge.logits(found).softmax(dim=1).float().cpu().numpy())
    return Judgement(np.concatenate(features), np.concatenate(probabilities))


def spatial_features(judge: Judge, pictures: UInt8) -> Float64:
    """First seven maps of the last convolution, position by position: float64 ``(N, 7 * H' * W')``."""
    with torch.inference_mode():
        maps = [judge.body(x)[:, :SPATIAL_CHANNELS].flatten(1).double().cpu() for x in _batches(judge, pictures)]
    found: Float64 = torch.cat(maps).numpy()
    return found


def _batches(judge: Judge, pictures: UInt8) -> Iterator[Tensor]:
    device = next(judge.parameters()).device
    for start in range(0, len(pictures), _AT_ONCE):
        yield to_network(pictures[start : start + _AT_ONCE]).to(device)


def to_network(pictures: UInt8) -> Tensor:
    """uint8 ``(N, H, W, C)`` to float32 ``(N, C, H, W)`` in [-1, 1], channels last in memory."""
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1


def to_pictures(x: Tensor) -> UInt8:
    """Back to uint8 ``(N, H, W, C)``, rounded to the nearest."""
    scaled: UInt8 = ((x + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1).cpu().numpy()
    return np.ascontiguousarray(scaled)


def _convolution(inside: int, outside: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(inside, outside, 3, padding=1, bias=False), nn.BatchNorm2d(outside), nn.ReLU()
