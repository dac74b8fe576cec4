"""The classifiers: a small convolutional network, ResNet-32 and a multilayer perceptron."""

from __future__ import annotations

from math import prod
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from models.core.classifiers import Standardised

Architecture = Literal["small-cnn", "resnet32", "mlp"]


class Classifier(Standardised):
    """Standardises its inputs, then gives logits ``(B, outputs)``.

    Args:
        shape: ``(C, H, W)`` of a picture or ``(D,)`` of a vector.
    """

    def __init__(
        self, architecture: Architecture, shape: tuple[int, ...], outputs: int, mean: torch.Tensor, std: torch.Tensor
    ) -> None:
        if architecture == "mlp":
            body: nn.Module = _mlp(prod(shape), outputs)
        elif architecture == "resnet32":
            body = ResNet(shape[0], outputs)
        else:
            body = _small_cnn(shape, outputs)
        super().__init__(body, mean, std)


def _mlp(size: int, outputs: int, width: int = 128) -> nn.Module:
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(size, width, bias=False),
        nn.BatchNorm1d(width),
        nn.ReLU(inplace=True),
        nn.Linear(width, width, bias=False),
        nn.BatchNorm1d(width),
        nn.ReLU(inplace=True),
        nn.Linear(width, outputs),
    )


def _small_cnn(shape: tuple[int, ...], outputs: int) -> nn.Module:
    channels, height, width = shape
    # Above 7 x 7 the maps are averaged, so that the size of the dense layer does not grow with the picture.
    rows, columns = (min(7, (extent + 3) // 4) for extent in (height, width))
    return nn.Sequential(
        nn.Conv2d(channels, 16, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(16),
        nn.ReLU(inplace=True),
        nn.Conv2d(16, 32, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d((rows, columns)) if max(height, width) > 28 else nn.Identity(),
        nn.Flatten(),
        nn.Linear(32 * rows * columns, 64),
        nn.ReLU(inplace=True),
        nn.Linear(64, outputs),
    )


class _Block(nn.Module):
    """Two 3x3 convolutions; the shortcut subsamples and pads channels with zeros (option A of He et al., 2016)."""

    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.stride, self.extra = stride, outer - inner
        self.conv1 = nn.Conv2d(inner, outer, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outer)
        self.conv2 = nn.Conv2d(outer, outer, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outer)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """``(B, inner, H, W)`` to ``(B, outer, H / stride, W / stride)``."""
        y = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        shortcut = x[:, :, :: self.stride, :: self.stride]
        return F.relu(y + F.pad(shortcut, (0, 0, 0, 0, 0, self.extra)))


class ResNet(nn.Module):
    """The CIFAR residual network with ``6 n + 2`` layers and widths 16, 32, 64 (He et al., CVPR 2016, section 4.2)."""

    def __init__(self, channels: int, outputs: int, n: int = 5) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(channels, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(inplace=True)
        )
        blocks: list[nn.Module] = []
        inner = 16
        for outer in (16, 32, 64):
            for index in range(n):
                blocks.append(_Block(inner, outer, 2 if index == 0 and outer > 16 else 1))
                inner = outer
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(64, outputs)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits ``(B, outputs)``."""
        pooled: torch.Tensor = self.blocks(self.stem(x)).mean(dim=(2, 3))
        return torch.as_tensor(self.head(pooled))
