"""The worst expectation over a chi-square ball of weights: the concave function that relaxes a marginal.

For weights ``a`` on a simplex and potentials ``f``,

.. math:: S_\\rho(f) = \\min_w \\sum_i a_i w_i f_i
          \\quad\\text{s.t.}\\quad w \\ge 0,\\; \\sum_i a_i w_i = 1,\\; \\tfrac12 \\sum_i a_i (w_i - 1)^2 \\le \\rho .

It is the dual of the relaxed marginal of robust optimal transport (Balaji, Chellappa and Feizi 2020, equation 5), with
the half that their continuous code has and their discrete solver lacks. Its gradient is ``a * w``.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from models.core.inputs import Float64


class RobustExpectation(NamedTuple):
    """``S_rho(f)``, and the float64 ``(n,)`` weights that attain it."""

    value: float
    weights: Float64


def chi_square(weights: Float64, a: Float64) -> float:
    """``1/2 sum a (w - 1)^2``, the divergence of ``a * w`` from ``a``."""
    return 0.5 * float(a @ (weights - 1.0) ** 2)


def largest_radius(a: Float64) -> float:
    """The radius beyond which all mass may sit on the lightest atom: ``(1/min a - 1)/2``, ``(n-1)/2`` when uniform."""
    return 0.5 * (1.0 / float(a.min()) - 1.0)


def robust_expectation(f: Float64, a: Float64, rho: float) -> RobustExpectation:
    """Solve the inner problem exactly in O(n log n).

    Where no weight hits zero it is the variance identity ``mean f - sqrt(2 rho Var f)``. Otherwise the weights are
    ``max(0, (eta - f)/lambda)``: the divergence falls as the threshold ``eta`` rises, so the number of atoms that keep
    mass is found among the sorted potentials, and ``eta`` and ``lambda`` follow in closed form.

    Args:
        f: float64 ``(n,)`` potentials.
        a: float64 ``(n,)``, positive, summing to one.
        rho: radius of the ball, ``>= 0``.
    """
    if rho <= 0.0:
        return RobustExpectation(float(a @ f), np.ones_like(f))
    mean = float(a @ f)
    centred = f - mean
    variance = float(a @ centred**2)
    if variance <= 0.0:
        return RobustExpectation(mean, np.ones_like(f))
    weights = 1.0 - np.sqrt(2.0 * rho / variance) * centred
    if weights.min() < 0.0:
        weights = _thresholded(f, a, rho)
    weights = feasible_weights(weights, a, rho)
    return RobustExpectation(float(a @ (weights * f)), weights)


def _thresholded(f: Float64, a: Float64, rho: float) -> Float64:
    order = np.argsort(f, kind="stable")
    level, mass = f[order] - f[order[0]], a[order]
    total = np.cumsum(mass)
    mean = np.cumsum(mass * level) / total
    variance = np.maximum(np.cumsum(mass * level**2) / total - mean**2, 0.0)
    ahead = level[1:] - mean[:-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        divergence = 0.5 * ((1.0 + variance[:-1] / ahead**2) / total[:-1] - 1.0)
    divergence = np.where(ahead > 0.0, divergence, np.inf)
    inside = np.flatnonzero(divergence <= rho)
    kept = order[: int(inside[0]) + 1 if len(inside) else len(f)]
    share = float(a[kept].sum())
    # Measured from the least potential, so that atoms which share it are exactly equal.
    low = f[kept] - f[order[0]]
    centre = float(a[kept] @ low) / share
    spread = float(a[kept] @ (low - centre) ** 2) / share
    slack = (1.0 + 2.0 * rho) * share - 1.0
    weights = np.zeros_like(f)
    if spread <= 0.0 or slack <= 0.0:
        weights[kept] = 1.0 / share
        return weights
    scale = np.sqrt(spread / slack)
    weights[kept] = np.maximum(0.0, centre + scale - low) / (scale * share)
    return weights


def feasible_weights(weights: Float64, a: Float64, rho: float) -> Float64:
    """The weights scaled to total mass one and drawn towards one until they lie in the ball (to 1e-12 of ``rho``).

    Args:
        weights: float64 ``(n,)``, non-negative, not all zero.
    """
    weights = weights / float(a @ weights)
    divergence = chi_square(weights, a)
    if divergence > rho * (1.0 + 1e-12):
        weights = 1.0 + (weights - 1.0) * np.sqrt(rho / divergence)
    return weights
