"""Exact optimal transport by POT's network simplex, with the checks that it leaves to its caller."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import ot

from models.core.inputs import Float64, Int64

# POT stops at 100,000 pivots with no more than a warning; two clouds of 2,000 points already need more.
MAX_ITERATIONS = 50_000_000
_MASS_TOLERANCE = 1e-8
_OPTIMAL = 1

Plan = tuple[Int64, Int64, Float64]


@dataclass(frozen=True, eq=False)
class ExactTransport:
    """An optimal coupling and its dual.

    Attributes:
        cost: ``sum_ij pi_ij C_ij``.
        u: float64 ``(n,)`` potential of side a.
        v: float64 ``(m,)`` potential of side b.
        plan: non-zero entries ``(rows, columns, mass)``, at most ``n + m - 1``; None when not asked for.
        converged: the simplex method ended at an optimum and the coupling keeps both marginals.
        marginal_error: largest absolute difference of a marginal of the coupling from its weights.
        gap: ``cost - (a @ u + b @ v)``, zero at an optimum up to rounding.
        message: what the solver said when it has not converged.
    """

    cost: float
    u: Float64
    v: Float64
    plan: Plan | None
    converged: bool
    marginal_error: float
    gap: float
    message: str = ""


def exact_transport(
    a: Float64,
    b: Float64,
    cost: Float64,
    *,
    potentials: tuple[Float64, Float64] | None = None,
    plan: bool = False,
    max_iterations: int = MAX_ITERATIONS,
) -> ExactTransport:
    """Solve ``min <pi, C>`` over couplings of ``a`` and ``b``.

    Args:
        a: float64 ``(n,)``, non-negative; rows of zero mass are left out of the problem.
        b: float64 ``(m,)``, non-negative, of the same sum as ``a``.
        cost: float64 ``(n, m)``, finite.
        potentials: where to start, e.g. those of a neighbouring problem.
        plan: also return the coupling.
        max_iterations: pivots after which the best coupling so far is returned, ``converged`` false.

    Raises:
        ValueError: the shapes do not fit, a mass is negative, the sums differ by more than 1e-8 of their value, or a
            cost is not finite.
    """
    _check(a, b, cost)
    balanced = b * (a.sum() / b.sum())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dense, log = ot.emd(
            a, balanced, cost, numItermax=max_iterations, log=True, center_dual=False, potentials_init=potentials
        )
    rows, columns = np.nonzero(dense)
    mass = dense[rows, columns]
    error = max(
        float(np.abs(np.bincount(rows, mass, len(a)) - a).max()),
        float(np.abs(np.bincount(columns, mass, len(b)) - balanced).max()),
    )
    optimal = int(log["result_code"]) == _OPTIMAL
    kept = error <= _MASS_TOLERANCE * max(1.0, float(a.sum()))
    total = float(mass @ cost[rows, columns])
    u, v = np.asarray(log["u"]), np.asarray(log["v"])
    message = "" if optimal and kept else str(log["warning"] or f"marginal error {error:.1e}")
    sparse = (rows.astype(np.int64), columns.astype(np.int64), mass) if plan else None
    return ExactTransport(total, u, v, sparse, optimal and kept, error, total - float(a @ u + balanced @ v), message)


def _check(a: Float64, b: Float64, cost: Float64) -> None:
    if cost.shape != (len(a), len(b)) or not cost.size:
        raise ValueError(f"cost: expected shape {(len(a), len(b))} without a zero, got {cost.shape}")
    if (a < 0.0).any() or (b < 0.0).any():
        raise ValueError("weights must not be negative")
    difference = abs(float(a.sum() - b.sum()))
    if not difference <= _MASS_TOLERANCE * max(float(a.sum()), float(b.sum())):
        raise ValueError(f"weights: the two sides' sums differ by {difference:.3g}")
    if not np.isfinite(cost).all():
        raise ValueError("cost: expected finite numbers")
