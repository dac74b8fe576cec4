"""The losses of the paper, on rows of unit length.

Wang & Isola, "Understanding Contrastive Representation Learning through Alignment and Uniformity on the
Hypersphere", ICML 2020. Every function takes float rows ``(B, m)`` that are L2-normalised and returns a scalar.
"""

from __future__ import annotations

import math

import torch
from scipy.special import hyp0f1
from torch import Tensor
from torch.nn import functional as F

_NEAR = 1e-6


def alignment(x: Tensor, y: Tensor, alpha: float = 2.0) -> Tensor:
    """``E ||x - y||^alpha`` over the positive pairs ``(x[i], y[i])`` (section 4.1).

    For ``alpha != 2`` the power is continued linearly below a squared distance of 1e-6, where its gradient has
    no bound.
    """
    squared = (x - y).square().sum(dim=1)
    if alpha == 2.0:
        return squared.mean()
    power = squared.clamp_min(_NEAR).pow(alpha / 2)
    return torch.where(squared > _NEAR, power, squared * _NEAR ** (alpha / 2 - 1)).mean()


def uniformity(x: Tensor, t: float = 2.0) -> Tensor:
    """``log E exp(-t ||x_i - x_j||^2)`` over the pairs ``i != j`` (section 4.1).

    In the log domain and with ``||u - v||^2 = 2 - 2 u.v``: no underflow to ``-inf``, a finite gradient for
    coincident rows.

    Raises:
        ValueError: fewer than two rows.
    """
    count = len(x)
    if count < 2:
        raise ValueError(f"uniformity needs at least two rows, got {count}")
    exponent = -t * squared_distances(x, x)
    itself = torch.eye(count, dtype=torch.bool, device=x.device)
    return _log_mean_exp(exponent.masked_fill(itself, -torch.inf), count * (count - 1))


def joint_uniformity(x: Tensor, y: Tensor, t: float = 2.0) -> Tensor:
    """:func:`uniformity` of both views pooled, the positive pairs left out.

    Pooling the positives as well would pull the average towards the alignment and measure something else.
    """
    count = len(x)
    rows = torch.cat([x, y])
    position = torch.arange(2 * count, device=x.device) % count
    same = position[:, None] == position[None, :]
    exponent = (-t * squared_distances(rows, rows)).masked_fill(same, -torch.inf)
    return _log_mean_exp(exponent, 4 * count * (count - 1))


def contrastive(x: Tensor, y: Tensor, negatives: Tensor, temperature: float) -> Tensor:
    """The paper's eq. 1: one positive ``y[i]`` and M negatives against each anchor ``x[i]``.

    Args:
        negatives: ``(B, M, m)``, or ``(M, m)`` shared by all anchors.
    """
    positive = (x * y).sum(dim=1, keepdim=True)
    against = x @ negatives.T if negatives.ndim == 2 else torch.einsum("bd,bmd->bm", x, negatives)
    logits = torch.cat([positive, against], dim=1) / temperature
    return (torch.logsumexp(logits, dim=1) - logits[:, 0]).mean()


def nt_xent(x: Tensor, y: Tensor, temperature: float) -> Tensor:
    """SimCLR's loss (Chen et al. 2020, eq. 1): every row against the 2B - 1 others, its other view the positive."""
    count = len(x)
    rows = torch.cat([x, y])
    logits = rows @ rows.T / temperature
    logits.fill_diagonal_(-torch.inf)
    positive = torch.arange(2 * count, device=x.device).roll(count)
    return F.cross_entropy(logits, positive)


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """``||x_i - y_j||^2`` of unit rows, float ``(len(x), len(y))``, never below zero."""
    return (2 - 2 * (x @ y.T)).clamp_min(0)


def uniformity_optimum(dimensions: int, t: float = 2.0) -> float:
    """Uniformity of the uniform law on the unit sphere of R^m: ``log 0F1(; m/2; t^2) - 2t`` (from Proposition 1)."""
    return float(math.log(hyp0f1(dimensions / 2, t * t)) - 2 * t)


def contrastive_limit_on_circle(temperature: float) -> float:
    """Theorem 1's limit of eq. 1 minus ``log M`` for perfect alignment and the uniform law on S^1.

    ``-1/tau + log I_0(1/tau)``.
    """
    from scipy.special import i0e

    return float(math.log(i0e(1 / temperature)))


def _log_mean_exp(exponent: Tensor, count: int) -> Tensor:
    return torch.logsumexp(exponent.flatten(), dim=0) - math.log(count)
