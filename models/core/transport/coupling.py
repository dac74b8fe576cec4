"""A coupling that keeps its marginals exactly, held as an entropic kernel and never written out as a whole."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from models.core.transport.kernel import CostRows, Costs
from models.core.transport.sinkhorn import Sinkhorn


@dataclass(frozen=True, eq=False)
class RoundedCoupling:
    """``pi_ij = left_i kernel_ij right_j + short_a_i short_b_j``, with the given marginals up to rounding.

    The rounding of :func:`models.core.transport.rounding.round_coupling`, done on the factors.

    Attributes:
        kernel: ``(n, m)``.
        left: float64 ``(n,)``.
        right: float64 ``(m,)``.
        short_a: float64 ``(n,)``, mass that the rows lacked.
        short_b: float64 ``(m,)``, the same for columns, divided by its sum.
    """

    kernel: Tensor
    left: Tensor
    right: Tensor
    short_a: Tensor
    short_b: Tensor

    @classmethod
    def of(cls, solved: Sinkhorn, a: Tensor, b: Tensor) -> RoundedCoupling:
        """Round the first coupling of a batch to the marginals ``a`` and ``b``, float64 ``(n,)`` and ``(m,)``."""
        kernel, left, right = solved.kernel[0], solved.left[0], solved.right[0]
        bounds = Costs(kernel).blocks()
        left = left * (a / (left * _rows(kernel, right, bounds))).clamp_max(1.0)
        right = right * (b / (right * _columns(kernel, left, bounds))).clamp_max(1.0)
        short_a = (a - left * _rows(kernel, right, bounds)).clamp_min(0.0)
        short_b = (b - right * _columns(kernel, left, bounds)).clamp_min(0.0)
        return cls(kernel, left, right, short_a, short_b / short_b.sum().clamp_min(torch.finfo(b.dtype).tiny))

    def block(self, start: int, stop: int) -> Tensor:
        """Rows ``start..stop`` of the coupling: float64 ``(stop - start, m)``."""
        found = self.kernel[start:stop].double() * self.left[start:stop, None] * self.right
        return found.addr_(self.short_a[start:stop], self.short_b)

    def cost(self, cost: Tensor | CostRows) -> float:
        """``<pi, C>``."""
        costs = Costs(cost)
        return sum(float((self.block(*bounds) * costs.rows(*bounds)[0].double()).sum()) for bounds in costs.blocks())

    def grouped(self, rows: Tensor, columns: Tensor, shape: tuple[int, int]) -> Tensor:
        """Mass between groups of rows and groups of columns: float64 of ``shape``.

        Args:
            rows: int64 ``(n,)`` group of each row.
            columns: int64 ``(m,)`` group of each column.
        """
        found = self.left.new_zeros(shape)
        for start, stop in Costs(self.kernel).blocks():
            by_column = self.left.new_zeros((stop - start, shape[1])).index_add_(1, columns, self.block(start, stop))
            found.index_add_(0, rows[start:stop], by_column)
        return found

    def largest(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """The ``count`` largest entries of every row: int64 rows, int64 columns, float64 mass, each flat."""
        count = min(count, self.kernel.shape[1])
        found = [torch.topk(self.block(*bounds), count, dim=1) for bounds in Costs(self.kernel).blocks()]
        mass, columns = torch.cat([top.values for top in found]), torch.cat([top.indices for top in found])
        rows = torch.arange(len(mass), device=mass.device)[:, None].expand_as(columns)
        kept = mass > 0.0
        return rows[kept], columns[kept], mass[kept]


def _rows(kernel: Tensor, right: Tensor, bounds: list[tuple[int, int]]) -> Tensor:
    return torch.cat([kernel[start:stop].double() @ right for start, stop in bounds])


def _columns(kernel: Tensor, left: Tensor, bounds: list[tuple[int, int]]) -> Tensor:
    found = left.new_zeros(kernel.shape[1])
    for start, stop in bounds:
        found += left[start:stop] @ kernel[start:stop].double()
    return found
