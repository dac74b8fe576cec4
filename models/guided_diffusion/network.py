"""ADM's U-Net and its classifier of noisy pictures (Dhariwal & Nichol 2021, sections 3 and 4, appendix)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.guided_diffusion.blocks import Conditioning, Modulation, ResBlock, Stage, Trunk, widths_of, zeroed
from models.guided_diffusion.schema import Config


class UNet(nn.Module):
    """Predicts the noise, and with twice the output channels the variance's interpolation beside it.

    Args:
        outputs: channels of the output.
        labels: rows of the label table; the last one is the null label.
    """

    def __init__(
        self, trunk: Trunk, *, width: int, multipliers: Sequence[float], depth: int, outputs: int, labels: int
    ):
        super().__init__()
        self.trunk = trunk
        kept, current, size = list(trunk.kept), trunk.out_channels, trunk.size
        self.up = nn.ModuleList()
        self.joins: list[bool] = []
        for level, multiplier in reversed(list(enumerate(multipliers))):
            for _ in range(depth + 1):
                self.up.append(trunk.stage(current + kept.pop(), int(multiplier * width), size))
                self.joins.append(True)
                current = int(multiplier * width)
            if level:
                self.up.append(Stage(ResBlock(current, current, trunk.groups, trunk.dropout, "up")))
                self.joins.append(False)
                size *= 2
        self.norm = nn.GroupNorm(trunk.groups, current)
        self.output = zeroed(nn.Conv2d(current, outputs, 3, padding=1))
        self.conditioning = Conditioning(width, labels, widths_of(self))

    def forward(self, x: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        """Noise (and variance) of ``x``.

        Args:
            x: noisy pictures, float32 ``(B, C, H, W)``.
            t: steps of the full process, int64 ``(B,)``.
            labels: int64 ``(B,)``.
        """
        return self.modulated(x, self.conditioning(t, labels))

    def modulated(self, x: Tensor, rows: Tensor) -> Tensor:
        """The same with the rows ``(B, M)`` of :class:`Conditioning` at hand, which a sampler makes once a step."""
        modulation = Modulation(rows, self.conditioning.widths)
        h, kept = self.trunk(x, modulation)
        for stage, joins in zip(self.up, self.joins, strict=True):
            h = stage(torch.cat([h, kept.pop()], dim=1) if joins else h, modulation)
        result: Tensor = self.output(F.silu(self.norm(h)))
        return result


class AttentionPool(nn.Module):
    """Logits from attention whose one query is the mean token; positions are learned."""

    def __init__(self, channels: int, head_channels: int, positions: int, outputs: int) -> None:
        super().__init__()
        self.heads = max(1, channels // head_channels)
        self.positions = nn.Parameter(torch.randn(positions + 1, channels) / math.sqrt(channels))
        self.query = nn.Linear(channels, channels)
        self.key_value = nn.Linear(channels, 2 * channels)
        self.output = nn.Linear(channels, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to ``(B, outputs)``."""
        tokens = x.flatten(2).transpose(1, 2)
        tokens = torch.cat([tokens.mean(dim=1, keepdim=True), tokens], dim=1) + self.positions
        batch, count, channels = tokens.shape
        split = (batch, count, 2, self.heads, channels // self.heads)
        k, v = self.key_value(tokens).reshape(split).permute(2, 0, 3, 1, 4)
        q = self.query(tokens[:, :1]).reshape(batch, 1, self.heads, -1).transpose(1, 2)
        logits: Tensor = self.output(F.scaled_dot_product_attention(q, k, v).reshape(batch, channels))
        return logits


class NoisyClassifier(nn.Module):
    """The U-Net's down half over an attention pool: class logits of a noisy picture and its step.

    Nothing in it mixes the images of a batch, so the gradient of a sum over images holds each image's own.
    """

    def __init__(self, trunk: Trunk, *, width: int, classes: int) -> None:
        super().__init__()
        self.trunk = trunk
        self.norm = nn.GroupNorm(trunk.groups, trunk.out_channels)
        self.pool = AttentionPool(trunk.out_channels, trunk.head_channels, trunk.size**2, classes)
        self.conditioning = Conditioning(width, 0, widths_of(trunk))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        """Logits ``(B, classes)`` of ``x`` float32 ``(B, C, H, W)`` at steps ``t`` int64 ``(B,)``."""
        h, _ = self.trunk(x, Modulation(self.conditioning(t), self.conditioning.widths))
        logits: Tensor = self.pool(F.silu(self.norm(h)))
        return logits


def build_unet(config: Config, channels: int, classes: int) -> UNet:
    """The U-Net of ``config``, in channels-last memory order."""
    trunk = _trunk(config, channels, config.width, config.depth, config.dropout)
    network = UNet(
        trunk,
        width=config.width,
        multipliers=config.multipliers,
        depth=config.depth,
        outputs=2 * channels if config.learned_variance else channels,
        labels=classes + 1,
    )
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def build_classifier(config: Config, channels: int, classes: int) -> NoisyClassifier:
    """The classifier of ``config``, in channels-last memory order."""
    trunk = _trunk(config, channels, config.classifier_width, config.classifier_depth, 0.0)
    network = NoisyClassifier(trunk, width=config.classifier_width, classes=classes)
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def _trunk(config: Config, channels: int, width: int, depth: int, dropout: float) -> Trunk:
    return Trunk(
        size=config.image_size,
        channels=channels,
        width=width,
        multipliers=config.multipliers,
        depth=depth,
        attention=config.attention,
        head_channels=config.head_channels,
        groups=config.groups,
        dropout=dropout,
    )
