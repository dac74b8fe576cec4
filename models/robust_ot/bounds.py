"""From the share of outliers to the radius that removes them, and what the paper guarantees at a radius."""

from __future__ import annotations

import math


def protecting_radius(outlier_fraction: float) -> float:
    """``rho* = gamma / (2 (1 - gamma))``: the chi-square divergence of dropping exactly a share ``gamma``."""
    return outlier_fraction / (2.0 * (1.0 - outlier_fraction))


def implied_fraction(rho: float) -> float:
    """The share of outliers that ``rho`` can drop: the inverse of :func:`protecting_radius`."""
    return 2.0 * rho / (1.0 + 2.0 * rho)


def robustness_factor(outlier_fraction: float, separation: float, rho: float) -> float:
    """Upper bound of ``W_rob(P, Q; rho, 0) / W(P_clean, Q)`` for ``P`` with a share of outliers.

    Mixing the clean part with what outlier mass the ball lets one remove gives
    ``max(1, 1 + k g - k sqrt(2 rho g (1 - g)))``; it is 1 from :func:`protecting_radius` on.

    Args:
        outlier_fraction: ``g``, in [0, 1).
        separation: ``k = W(P_clean, P_out) / W(P_clean, Q)``, at least 1.
        rho: radius of the relaxed side.
    """
    g = outlier_fraction
    removed = math.sqrt(2.0 * rho * g * (1.0 - g))
    return max(1.0, 1.0 + separation * (g - removed))
