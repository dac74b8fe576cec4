"""Noise schedules: float64 tables of the forward process and of its posterior (Ho et al. 2020; Nichol & Dhariwal 2021).

Index 0 is the paper's t = 1: the least noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from models.core.inputs import Float64, Int64


def linear_betas(steps: int) -> Float64:
    """From 1e-4 to 0.02 at a thousand steps, scaled so that other numbers of steps end equally noisy."""
    scale = 1000 / steps
    betas: Float64 = np.linspace(1e-4 * scale, min(0.02 * scale, 0.999), steps)
    return betas


def cosine_betas(steps: int) -> Float64:
    """``1 - A(u + 1/T) / A(u)`` for ``A(u) = cos^2((u + .008) / 1.008 * pi / 2)``, at most 0.999."""
    kept = np.cos((np.arange(steps + 1) / steps + 0.008) / 1.008 * np.pi / 2) ** 2
    betas: Float64 = np.minimum(1 - kept[1:] / kept[:-1], 0.999)
    return betas


def spaced(total: int, steps: int) -> Int64:
    """``steps`` of ``0 .. total - 1`` at an even stride, both ends among them.

    Raises:
        ValueError: fewer than two steps or more than there are.
    """
    if not 2 <= steps <= total:
        raise ValueError(f"steps: {steps} is not between 2 and the {total} of the process")
    return np.round(np.arange(steps) * ((total - 1) / (steps - 1))).astype(np.int64)


def spaced_sections(total: int, counts: Sequence[int]) -> Int64:
    """The same in equal sections of the process, ``counts[i]`` steps in section i.

    Raises:
        ValueError: a section is shorter than its count.
    """
    size, extra = divmod(total, len(counts))
    chosen, start = [], 0
    for position, count in enumerate(counts):
        length = size + (position < extra)
        section = np.zeros(1, dtype=np.int64) if count == 1 else spaced(length, count)
        chosen.append(start + section)
        start += length
    return np.concatenate(chosen)


def strided(total: int, steps: int) -> Int64:
    """The official ``ddimN``: every ``total // steps``-th step from 0.

    Raises:
        ValueError: no integer stride gives exactly ``steps``.
    """
    for stride in range(1, total):
        found = np.arange(0, total, stride)
        if len(found) == steps:
            return found
    raise ValueError(f"no integer stride takes {steps} of {total} steps")


@dataclass(frozen=True, eq=False)
class Schedule:
    """Tables of one process, float64 ``(S,)`` each.

    Attributes:
        betas: variance added by each step.
        timesteps: int64 ``(S,)``, the step of the full process that the network is told.
    """

    betas: Float64
    timesteps: Int64

    @classmethod
    def make(cls, kind: Literal["linear", "cosine"], steps: int) -> Schedule:
        """The full process of ``steps`` steps."""
        return cls(linear_betas(steps) if kind == "linear" else cosine_betas(steps), np.arange(steps))

    def __len__(self) -> int:
        return len(self.betas)

    def respace(self, kept: Int64) -> Schedule:
        """The process that visits only the steps ``kept`` (rising): ``b'_i = 1 - A_kept[i] / A_kept[i-1]``."""
        alphas = self.alphas_bar[kept]
        return Schedule(1 - alphas / np.concatenate([[1.0], alphas[:-1]]), self.timesteps[kept])

    def last_above(self, share: float) -> tuple[int, float]:
        """The last step that keeps more than ``share`` of the picture's variance (or step 0), and what it keeps."""
        index = max(0, int((self.alphas_bar > share).sum()) - 1)
        return int(self.timesteps[index]), float(self.alphas_bar[index])

    @cached_property
    def alphas_bar(self) -> Float64:
        """A_t, the share of the picture's variance left after step t."""
        return np.cumprod(1 - self.betas, dtype=np.float64)

    @cached_property
    def alphas_bar_previous(self) -> Float64:
        """A_{t-1}, with A_{-1} = 1."""
        previous: Float64 = np.concatenate([[1.0], self.alphas_bar[:-1]])
        return previous

    @cached_property
    def noise_variance(self) -> Float64:
        """``1 - A_t``; the first step's is its beta exactly, so that its posterior is the picture exactly."""
        variance = 1 - self.alphas_bar
        variance[0] = self.betas[0]
        return variance

    @cached_property
    def posterior_variance(self) -> Float64:
        """``b~_t = b_t (1 - A_{t-1}) / (1 - A_t)``, the variance of q(x_{t-1} | x_t, x_0)."""
        table: Float64 = self.betas * (1 - self.alphas_bar_previous) / self.noise_variance
        return table

    @cached_property
    def posterior_log_variance(self) -> Float64:
        """Its logarithm; step 0, whose variance is 0, takes step 1's."""
        variance = self.posterior_variance
        logarithm: Float64 = np.log(np.concatenate([variance[1:2], variance[1:]]))
        return logarithm

    @cached_property
    def posterior_start(self) -> Float64:
        """Factor of x_0 in the mean of q(x_{t-1} | x_t, x_0)."""
        table: Float64 = np.sqrt(self.alphas_bar_previous) * self.betas / self.noise_variance
        return table

    @cached_property
    def posterior_noisy(self) -> Float64:
        """Factor of x_t in the same mean."""
        table: Float64 = np.sqrt(1 - self.betas) * (1 - self.alphas_bar_previous) / self.noise_variance
        return table
