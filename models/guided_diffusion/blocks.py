"""The blocks of ADM (Dhariwal & Nichol 2021, section 3): residual blocks, attention, conditioning, the down half."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Resample = Literal["down", "up", "none"]


def time_embedding(t: Tensor, dimensions: int, period: float = 1e4) -> Tensor:
    """Cosines, then sines, of ``t * period^(-i / (dimensions / 2))``: float32 ``(N, dimensions)``.

    Args:
        t: steps of the full process, ``(N,)``.
        dimensions: even.
    """
    half = dimensions // 2
    frequencies = torch.exp(-math.log(period) * torch.arange(half, device=t.device, dtype=torch.float32) / half)
    angles = t.float()[:, None] * frequencies
    return torch.cat([torch.cos(angles), torch.sin(angles)], dim=1)


class Modulation:
    """Hands each residual block, in the order of their making, its scale and shift out of one row an image."""

    def __init__(self, rows: Tensor, widths: Sequence[int]) -> None:
        self._parts: Iterator[Tensor] = iter(
            torch.split(rows[:, :, None, None], [2 * width for width in widths], dim=1)
        )

    def next(self) -> tuple[Tensor, Tensor]:
        """``(B, C, 1, 1)`` scale and shift of the next block."""
        scale, shift = next(self._parts).chunk(2, dim=1)
        return scale, shift


class ResBlock(nn.Module):
    """Two convolutions around an adaptive group normalisation; zero at the start, so that it begins as its skip."""

    def __init__(self, inside: int, outside: int, groups: int, dropout: float, resample: Resample = "none") -> None:
        super().__init__()
        self.resample = resample
        self.outside = outside
        self.norm1 = nn.GroupNorm(groups, inside)
        self.conv1 = nn.Conv2d(inside, outside, 3, padding=1)
        self.norm2 = nn.GroupNorm(groups, outside)
        self.dropout = nn.Dropout(dropout)
        self.conv2 = zeroed(nn.Conv2d(outside, outside, 3, padding=1))
        self.skip = nn.Identity() if inside == outside else nn.Conv2d(inside, outside, 1)

    def forward(self, x: Tensor, modulation: Modulation) -> Tensor:
        """``(B, inside, H, W)`` to ``(B, outside, H', W')``."""
        # A tenth of the time goes where no gradient needs what is written over; a compiler sees to that by itself.
        over = not torch.is_grad_enabled() and not torch.compiler.is_compiling()
        h = F.silu(self.norm1(x), inplace=over)
        if self.resample == "down":
            h, x = F.avg_pool2d(h, 2), F.avg_pool2d(x, 2)
        elif self.resample == "up":
            h, x = (F.interpolate(value, scale_factor=2, mode="nearest") for value in (h, x))
        scale, shift = modulation.next()
        h = self.norm2(self.conv1(h))
        h = torch.addcmul(shift, h, 1 + scale, out=h if over else None)
        h = self.conv2(self.dropout(F.silu(h, inplace=over)))
        return torch.add(self.skip(x), h, out=h if over else None)


class Attention(nn.Module):
    """Self-attention over positions; queries, keys and values are split before the heads."""

    def __init__(self, channels: int, head_channels: int, groups: int) -> None:
        super().__init__()
        self.heads = max(1, channels // head_channels)
        self.norm = nn.GroupNorm(groups, channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.project = zeroed(nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W)`` to the same shape."""
        batch, channels, height, width = x.shape
        split = (batch, 3, self.heads, channels // self.heads, height * width)
        q, k, v = self.qkv(self.norm(x)).reshape(split).transpose(3, 4).unbind(1)
        mixed = F.scaled_dot_product_attention(q, k, v)
        mixed = mixed.transpose(2, 3).reshape(batch, channels, height, width)
        if x.is_contiguous(memory_format=torch.channels_last):
            mixed = mixed.contiguous(memory_format=torch.channels_last)
        projected: Tensor = self.project(mixed)
        return x + projected


class Conditioning(nn.Module):
    """Turns step and label into every block's scale and shift; all blocks' linear maps are one matrix.

    Args:
        channels: width of the sinusoidal embedding.
        labels: rows of the label table, the null label included; 0 for none.
        widths: channels of each block, in order.
    """

    def __init__(self, channels: int, labels: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.channels = channels
        self.widths = list(widths)
        self.labels = labels
        self.mlp = nn.Sequential(nn.Linear(channels, 4 * channels), nn.SiLU(), nn.Linear(4 * channels, 4 * channels))
        self.label = nn.Embedding(labels, 4 * channels) if labels else None
        self.blocks = nn.Linear(4 * channels, 2 * sum(widths))

    def forward(self, t: Tensor, labels: Tensor | None = None) -> Tensor:
        """Rows ``(N, 2 * sum(widths))`` of ``t`` (N,) and ``labels`` int64 ``(N,)``."""
        embedding = self.mlp(time_embedding(t, self.channels))
        if self.label is not None and labels is not None:
            embedding = embedding + self.label(labels)
        rows: Tensor = self.blocks(F.silu(embedding))
        return rows


class Stage(nn.Module):
    """A residual block and, where its scale is listed, attention."""

    def __init__(self, block: ResBlock, attention: Attention | None = None) -> None:
        super().__init__()
        self.block = block
        self.attention = attention

    def forward(self, x: Tensor, modulation: Modulation) -> Tensor:
        """As the block."""
        x = self.block(x, modulation)
        return x if self.attention is None else self.attention(x)


class Trunk(nn.Module):
    """The down half and the middle, which the U-Net and the classifier share.

    Args:
        size: side of the pictures, pixels; attention acts where the scale's side is in ``attention``.
    """

    def __init__(
        self,
        *,
        size: int,
        channels: int,
        width: int,
        multipliers: Sequence[float],
        depth: int,
        attention: Sequence[int],
        head_channels: int,
        groups: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.groups, self.dropout, self.head_channels = groups, dropout, head_channels
        self.attended = set(attention)
        self.input = nn.Conv2d(channels, int(multipliers[0] * width), 3, padding=1)
        self.stages = nn.ModuleList()
        self.kept = [int(multipliers[0] * width)]
        current = self.kept[0]
        for level, multiplier in enumerate(multipliers):
            for _ in range(depth):
                self.stages.append(self.stage(current, int(multiplier * width), size))
                current = int(multiplier * width)
                self.kept.append(current)
            if level < len(multipliers) - 1:
                self.stages.append(Stage(ResBlock(current, current, groups, dropout, "down")))
                self.kept.append(current)
                size //= 2
        self.size, self.out_channels = size, current
        self.middle = nn.ModuleList(
            [
                Stage(ResBlock(current, current, groups, dropout), Attention(current, head_channels, groups)),
                Stage(ResBlock(current, current, groups, dropout)),
            ]
        )

    def stage(self, inside: int, outside: int, size: int) -> Stage:
        """A residual block, with attention where ``size`` is an attended scale."""
        attention = Attention(outside, self.head_channels, self.groups) if size in self.attended else None
        return Stage(ResBlock(inside, outside, self.groups, self.dropout), attention)

    def forward(self, x: Tensor, modulation: Modulation) -> tuple[Tensor, list[Tensor]]:
        """The middle's output, and the outputs of the input convolution and every stage above it, in order."""
        x = self.input(x)
        kept = [x]
        for stage in self.stages:
            x = stage(x, modulation)
            kept.append(x)
        for stage in self.middle:
            x = stage(x, modulation)
        return x, kept


def widths_of(module: nn.Module) -> list[int]:
    """Channels of the residual blocks of ``module``, in the order in which they run."""
    return [block.outside for block in module.modules() if isinstance(block, ResBlock)]


def zeroed(layer: nn.Conv2d) -> nn.Conv2d:
    """``layer`` with all parameters zero."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer
