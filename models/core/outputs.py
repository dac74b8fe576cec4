"""What ``Method.predict`` takes and gives, by capability. NumPy only; these objects cross process borders.

=============  ==========================  =================================================
capability     input item                  output item
=============  ==========================  =================================================
``embed``      picture, vector or text     float32 ``(D,)`` (a row of one ``(N, D)`` array)
``classify``   picture, vector or text     float32 ``(C,)`` probabilities, in ``class_names`` order
``distance``   :class:`Sides`              :class:`Distance`
=============  ==========================  =================================================
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, eq=False)
class Side:
    """One side of a distance.

    Attributes:
        points: float64 ``(n, d)``.
        weights: float64 ``(n,)``, positive, summing to one; None means uniform.
        labels: int64 ``(n,)`` in ``0..C-1``, or None.
        class_names: names of the labels.
    """

    points: npt.NDArray[np.float64]
    weights: npt.NDArray[np.float64] | None = None
    labels: npt.NDArray[np.int64] | None = None
    class_names: list[str] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class Sides:
    """The two sides of one distance; ``cost`` overrides the metric when given, float64 ``(n, m)``."""

    a: Side
    b: Side
    return_coupling: bool = False
    cost: npt.NDArray[np.float64] | None = None


@dataclass(frozen=True, eq=False)
class Distance:
    """A computed distance.

    Attributes:
        distance: the value, in units of the ground metric.
        details: JSON-serialisable facts: bounds, convergence, label distances, outlier weights, ...
        coupling: ``(rows int64, columns int64, mass float64)`` of the non-zero entries, or None.
    """

    distance: float
    details: dict[str, Any]
    coupling: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64]] | None = None
