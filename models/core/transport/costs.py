"""Ground costs between two point clouds, dense or in blocks of rows.

All values are powers of the ground distance, ``d(x, y)^p``, without a half: half the squared cost, the convention of
some libraries, gives half of ``W_2^2``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from models.core.inputs import Float64

Metric = Literal["euclidean", "cosine"]

_BLOCK_ENTRIES = 1 << 22
# Below this share of |x|^2 + |y|^2, the expanded square has lost six of float64's sixteen digits.
_CANCELLED = 1e-6


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """Squared Euclidean distances ``(n, m)`` of float64 ``(n, d)`` and ``(m, d)``, to a relative error of 1e-9.

    Computed as one matrix product; the few entries where that cancels are computed again from differences, so that
    equal points have distance zero exactly.
    """
    squares = x.square().sum(1)[:, None] + y.square().sum(1)[None, :]
    found = torch.addmm(squares, x, y.T, alpha=-2.0)
    cancelled = torch.nonzero(found <= _CANCELLED * squares)
    for pairs in torch.split(cancelled, max(1, _BLOCK_ENTRIES // x.shape[1])):
        i, j = pairs.unbind(1)
        found[i, j] = (x[i] - y[j]).square().sum(1)
    return found


@dataclass(frozen=True, eq=False)
class LabelCost:
    """What labels add to a ground cost.

    Attributes:
        rows: int64 ``(n,)`` labels of the first side, indices into the rows of ``table``.
        columns: int64 ``(m,)`` labels of the second side, indices into its columns.
        table: float64 ``(C, C')`` distances between classes, to the power p of the cost that they are added to.
    """

    rows: Tensor
    columns: Tensor
    table: Tensor

    def __post_init__(self) -> None:
        for labels, count, side in ((self.rows, len(self.table), "a"), (self.columns, self.table.shape[1], "b")):
            if len(labels) and not (int(labels.min()) >= 0 and int(labels.max()) < count):
                raise ValueError(f"labels of side {side} must lie in 0..{count - 1}")


@dataclass(frozen=True, eq=False)
class GroundCost:
    """``C_ij = scale d(x_i, y_j)^p + table[label_i, label_j]``, never held as a whole unless asked for.

    Attributes:
        x: float64 ``(n, d)``.
        y: float64 ``(m, d)``, on the same device.
        p: 1 or 2.
        metric: ``euclidean``, or ``cosine``: one minus the cosine of the angle; zero vectors are at 1 of all others.
        scale: weight of the feature part.
        labels: what the labels add, already weighted; None for plain transport.

    Raises:
        ValueError: the dimensions differ.
    """

    x: Tensor
    y: Tensor
    p: int = 2
    metric: Metric = "euclidean"
    scale: float = 1.0
    labels: LabelCost | None = None
    _sides: tuple[Tensor, Tensor] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.x.shape[1] != self.y.shape[1]:
            raise ValueError(f"points of {self.y.shape[1]} numbers cannot be compared with {self.x.shape[1]}")
        if self.metric == "cosine":
            sides = F.normalize(self.x, dim=1), F.normalize(self.y, dim=1)
        else:
            # Distances do not change when both sides move; rounding errors grow with the distance from the origin.
            centre = 0.5 * (self.x.mean(0) + self.y.mean(0))
            sides = self.x - centre, self.y - centre
        object.__setattr__(self, "_sides", sides)

    @property
    def shape(self) -> tuple[int, int]:
        """``(n, m)``."""
        return len(self.x), len(self.y)

    def block(self, start: int, stop: int) -> Tensor:
        """Rows ``start..stop``: float64 ``(stop - start, m)``."""
        x, y = self._sides[0][start:stop], self._sides[1]
        if self.scale == 0.0:
            found = x.new_zeros((len(x), len(y)))
        elif self.metric == "cosine":
            found = (1.0 - x @ y.T).clamp_min(0.0).pow(self.p).mul_(self.scale)
        else:
            found = squared_distances(x, y)
            found = (found.sqrt_() if self.p == 1 else found).mul_(self.scale)
        if self.labels is not None:
            found += self.labels.table[self.labels.rows[start:stop]][:, self.labels.columns]
        return found

    def dense(self, dtype: torch.dtype = torch.float64) -> Tensor:
        """The whole matrix ``(n, m)`` in ``dtype``, computed in float64 block by block."""
        n, m = self.shape
        found = torch.empty((n, m), dtype=dtype, device=self.x.device)
        step = max(1, _BLOCK_ENTRIES // m)
        for start in range(0, n, step):
            found[start : start + step] = self.block(start, min(n, start + step))
        return found

    def numpy(self) -> Float64:
        """The whole matrix as float64 ``(n, m)`` on the CPU, in C order."""
        return np.ascontiguousarray(self.dense().cpu().numpy())


def ground_cost(x: Float64, y: Float64, *, p: int = 2, metric: Metric = "euclidean") -> Float64:
    """The plain cost matrix of two clouds: float64 ``(n, m)``."""
    return GroundCost(torch.from_numpy(x), torch.from_numpy(y), p, metric).numpy()
