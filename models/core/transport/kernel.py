"""The Gibbs kernel of entropic transport around given potentials, built from costs in blocks of rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

_BLOCK_ENTRIES = 1 << 18
# exp() of less is denormal once it is scaled, ten times slower and below every sum that it could change.
_LOWEST, _HIGHEST = -70.0, 80.0


class CostRows(Protocol):
    """A cost matrix that is computed block by block, e.g. :class:`models.core.transport.costs.GroundCost`."""

    @property
    def shape(self) -> tuple[int, int]:
        """``(n, m)``."""
        ...

    def block(self, start: int, stop: int) -> Tensor:
        """Rows ``start..stop``: ``(stop - start, m)``."""
        ...


@dataclass(frozen=True, eq=False)
class Costs:
    """A batch of dense cost matrices ``(B, n, m)``, or one streamed matrix, behind one reader of rows."""

    source: Tensor | CostRows

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(B, n, m)``."""
        if isinstance(self.source, Tensor):
            batch, n, m = self.source.shape if self.source.ndim == 3 else (1, *self.source.shape)
            return batch, n, m
        return (1, *self.source.shape)

    def rows(self, start: int, stop: int) -> Tensor:
        """``(B, stop - start, m)``."""
        if not isinstance(self.source, Tensor):
            return self.source.block(start, stop)[None]
        return self.source[start:stop][None] if self.source.ndim == 2 else self.source[:, start:stop]

    def blocks(self) -> list[tuple[int, int]]:
        """Bounds of row blocks that stay in the processor's cache."""
        _, n, m = self.shape
        step = max(1, _BLOCK_ENTRIES // m)
        return [(start, min(n, start + step)) for start in range(0, n, step)]

    def largest(self) -> Tensor:
        """The largest cost of each matrix: ``(B,)``."""
        return torch.stack([self.rows(*block).amax((1, 2)).double() for block in self.blocks()]).amax(0)


def absorb_rows(costs: Costs, kernel: Tensor, g: Tensor, log_b: Tensor, epsilon: Tensor) -> Tensor:
    """Fill ``kernel`` with ``b_j exp((f_i + g_j - C_ij) / eps)`` where ``f`` makes every row sum to one.

    One pass over the costs: the log-sum-exp that gives ``f`` and the exponentials share their exponents.

    Args:
        kernel: ``(B, n, m)`` in the precision to compute in; overwritten.
        g: float64 ``(B, m)``.
        log_b: float64 ``(B, m)``.
        epsilon: float64 ``(B,)``.

    Returns:
        f: float64 ``(B, n)``, the soft c-transform ``-eps log sum_j b_j exp((g_j - C_ij) / eps)``.
    """
    scale = (-1.0 / epsilon).to(kernel.dtype)[:, None, None]
    shift = (g / epsilon[:, None] + log_b).to(kernel.dtype)[:, None, :]
    f = torch.empty(kernel.shape[:2], dtype=torch.float64, device=kernel.device)
    for start, stop in costs.blocks():
        exponents = torch.addcmul(shift, costs.rows(start, stop).to(kernel.dtype), scale)
        largest = exponents.amax(2, keepdim=True)
        block = exponents.sub_(largest).clamp_min_(_LOWEST).exp_()
        sums = block.sum(2, keepdim=True)
        torch.div(block, sums, out=kernel[:, start:stop])
        f[:, start:stop] = -epsilon[:, None] * (largest + sums.log())[..., 0].double()
    return f


def absorb_both(costs: Costs, kernel: Tensor, f: Tensor, log_a: Tensor, epsilon: Tensor) -> None:
    """Fill ``kernel`` with the symmetric ``a_j exp((f_i + f_j - C_ij) / eps)`` of a set against itself."""
    scale = (-1.0 / epsilon).to(kernel.dtype)[:, None, None]
    left = f / epsilon[:, None]
    right = (left + log_a).to(kernel.dtype)[:, None, :]
    for start, stop in costs.blocks():
        exponents = torch.addcmul(right, costs.rows(start, stop).to(kernel.dtype), scale)
        exponents += left[:, start:stop, None].to(kernel.dtype)
        torch.exp(exponents.clamp_(_LOWEST, _HIGHEST), out=kernel[:, start:stop])


def times(kernel: Tensor, vector: Tensor) -> Tensor:
    """``K v`` of each matrix: float64 ``(B, n)`` from float64 ``(B, m)``."""
    if len(kernel) == 1:
        return (kernel[0] @ vector[0].to(kernel.dtype)).double()[None]
    return (kernel @ vector.to(kernel.dtype)[..., None])[..., 0].double()


def times_transposed(kernel: Tensor, vector: Tensor) -> Tensor:
    """``K^T u`` of each matrix: float64 ``(B, m)`` from float64 ``(B, n)``."""
    return times(kernel.mT, vector)
