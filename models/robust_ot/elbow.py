"""Where the curve of robust distances bends."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from models.core.inputs import Float64


@dataclass(frozen=True)
class Elbow:
    """The knot of two straight lines fitted to a curve.

    Attributes:
        position: index of the point where they meet.
        slope_ratio: slope after the knot over the slope before it; near 1 where there is no bend.
    """

    position: int
    slope_ratio: float


def elbow(rho: Float64, power: Float64) -> Elbow | None:
    """Fit two joined straight lines in ``sqrt(2 rho)``, the knot at one of the points, by least squares.

    By the variance identity the value falls linearly in ``sqrt(2 rho)`` until the first weights reach zero, so that
    a bend is where outliers have lost their mass. Clean data bends as well, where its own rim has lost its mass.

    Args:
        rho: float64 ``(k,)`` radii, rising.
        power: float64 ``(k,)`` distances to the power p, falling.

    Returns:
        None for fewer than four points or a curve that does not fall.
    """
    if len(rho) < 4 or power[0] - power[-1] <= 0.0:
        return None
    x = np.sqrt(2.0 * rho)
    best, found = np.inf, None
    for position in range(1, len(x) - 1):
        basis = np.stack([np.ones_like(x), x, np.maximum(0.0, x - x[position])], axis=1)
        fitted, *_ = np.linalg.lstsq(basis, power, rcond=None)
        error = float(((basis @ fitted - power) ** 2).sum())
        if error < best and fitted[1] < 0.0:
            best, found = error, Elbow(position, float((fitted[1] + fitted[2]) / fitted[1]))
    return found
