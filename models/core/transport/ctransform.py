"""Hard c-transforms: the tightest potentials that a dual of optimal transport admits."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from models.core.inputs import Float64
from models.core.transport.kernel import CostRows, Costs

_BLOCK = 1 << 20


def row_transform(cost: Float64, g: Float64) -> Float64:
    """``f_i = min_j (C_ij - g_j)``, the largest ``f`` with ``f_i + g_j <= C_ij``: float64 ``(n,)``.

    Args:
        cost: float64 ``(n, m)``; worked on in blocks of rows, so no second matrix of its size is made.
        g: float64 ``(m,)``.
    """
    step = max(1, _BLOCK // cost.shape[1])
    blocks = range(0, len(cost), step)
    return np.concatenate([(cost[start : start + step] - g).min(axis=1) for start in blocks])


def column_transform(cost: Float64, f: Float64) -> Float64:
    """``g_j = min_i (C_ij - f_i)``, the largest ``g`` with ``f_i + g_j <= C_ij``: float64 ``(m,)``."""
    step = max(1, _BLOCK // cost.shape[1])
    best = np.full(cost.shape[1], np.inf)
    for start in range(0, len(cost), step):
        block = cost[start : start + step] - f[start : start + step, None]
        np.minimum(best, block.min(axis=0), out=best)
    return best


def tighten(cost: Float64, g: Float64) -> tuple[Float64, Float64]:
    """A feasible pair ``(f, g')`` from any ``g``: a row transform, then a column transform.

    Wherever ``g`` was feasible with some ``f``, neither potential falls.
    """
    f = row_transform(cost, g)
    return f, column_transform(cost, f)


def lower_bound(a: Tensor, b: Tensor, cost: Tensor | CostRows, g: Tensor) -> float:
    """The dual value of ``g`` and its row transform: no coupling of ``a`` and ``b`` costs less.

    Args:
        a: float64 ``(n,)``.
        b: float64 ``(m,)``.
        cost: ``(n, m)``, dense or streamed; read once. The bound holds up to the rounding of its precision.
        g: float64 ``(m,)``, any potential; the nearer to the optimum, the tighter the bound.
    """
    costs = Costs(cost)
    f = torch.cat([(costs.rows(*bounds)[0] - g).amin(1) for bounds in costs.blocks()])
    return float(a @ f + b @ g)
