"""Robust transport with a certificate: feasible weights and a feasible dual pair bracket the value.

The smoothed dual is maximised while its smoothing falls, each stage started from the one before. What it finds is then
made exact on both sides: the weights are feasible for the primal, and exact transport between the reweighted sides is
an upper bound; the potentials of that transport, and the c-transforms of our own, are feasible for the dual, and the
better of them is a lower bound.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch

from models.core.inputs import Float64, Int64
from models.core.transport.ctransform import tighten
from models.core.transport.exact import exact_transport
from models.core.transport.rounding import round_coupling
from models.robust_ot.dual import chi_square
from models.robust_ot.entropic import RobustProblem, SmoothedDual

Solver = Literal["certified", "entropic"]
Coupling = tuple[Int64, Int64, Float64]

_STAGES = (0.1, 0.03)
_SMALLEST = 1e-6
# Potentials over the smoothing reach its inverse; float32 then leaves too few digits to the exponents.
_SINGLE_ABOVE = 1e-3
_FLOOR = 1e-3
_EXACT = 1e-12


@dataclass(frozen=True, eq=False)
class RobustTransport:
    """The solution of a :class:`RobustProblem`; costs are powers, as in the problem's cost matrix.

    Attributes:
        lower: certified lower bound of the value.
        upper: cost of the feasible weights found, the value that is reported.
        gap: ``(upper - lower) / max(upper, plain / 1000)``.
        converged: the gap is within the tolerance, and every inner solver says that it has converged.
        weights_a: float64 ``(n,)``, mean one under ``a``; the relaxed marginal is ``a * weights_a``.
        weights_b: float64 ``(m,)``, likewise.
        f: float64 ``(n,)`` feasible potential of side a.
        g: float64 ``(m,)`` feasible potential of side b.
        epsilon: the last smoothing, as a fraction of the median cost; 0 where none was needed.
        coupling: non-zero entries ``(rows, columns, mass)``, or None when not asked for.
    """

    lower: float
    upper: float
    gap: float
    converged: bool
    weights_a: Float64
    weights_b: Float64
    f: Float64
    g: Float64
    epsilon: float
    iterations: int
    evaluations: int
    seconds: float
    coupling: Coupling | None = None


@dataclass
class _Bracket:
    """The best bounds so far."""

    problem: RobustProblem
    plain: float
    keep_coupling: bool
    lower: float = 0.0
    upper: float = np.inf
    weights: tuple[Float64, Float64] = field(default_factory=lambda: (np.empty(0), np.empty(0)))
    potentials: tuple[Float64, Float64] = field(default_factory=lambda: (np.empty(0), np.empty(0)))
    coupling: Coupling | None = None
    exact: bool = True

    @property
    def gap(self) -> float:
        if self.upper == np.inf:
            return np.inf
        return max(0.0, self.upper - self.lower) / max(self.upper, _FLOOR * self.plain, np.finfo(float).tiny)

    def offer_lower(self, f: Float64, g: Float64) -> None:
        """Try a feasible pair of potentials."""
        value = self.problem.dual_value(f, g)
        if not len(self.potentials[0]) or value > self.lower:
            self.potentials = (f, g)
        self.lower = max(self.lower, value)

    def offer_nearest(self) -> None:
        """Send each point of one side to its nearest on the other: optimal where the balls allow that."""
        problem = self.problem
        for cost, a, b, rho, first in (
            (problem.cost, problem.a, problem.b, problem.rho_a, True),
            (problem.cost.T, problem.b, problem.a, problem.rho_b, False),
        ):
            nearest = cost.argmin(axis=0)
            reached = cost[nearest, np.arange(len(b))]
            potentials = (np.zeros(len(a)), reached)
            self.offer_lower(*(potentials if first else potentials[::-1]))
            weights = np.bincount(nearest, b, len(a)) / a
            if chi_square(weights, a) <= rho:
                both, entries = (weights, np.ones(len(b))), (nearest, np.arange(len(b)), b)
                if not first:
                    both, entries = both[::-1], (entries[1], entries[0], b)
                self._offer_upper(float(b @ reached), both, entries if self.keep_coupling else None, exact=True)

    def certify(self, tight: tuple[Float64, Float64], weights: tuple[Float64, Float64]) -> None:
        """Bound from both sides by exact transport between the sides reweighted by ``weights``."""
        problem = self.problem
        a, b = problem.a * weights[0], problem.b * weights[1]
        exact = exact_transport(a, b, problem.cost, potentials=tight, plan=self.keep_coupling)
        self.offer_lower(*tighten(problem.cost, np.where(b > 0.0, exact.v, -np.inf)))
        self._offer_upper(exact.cost, weights, exact.plan, exact=exact.converged)

    def round(self, coupling: Float64, weights: tuple[Float64, Float64]) -> None:
        """Bound from above by rounding ``coupling`` to the sides reweighted by ``weights``."""
        problem = self.problem
        rounded = round_coupling(coupling, problem.a * weights[0], problem.b * weights[1])
        entries = None
        if self.keep_coupling:
            rows, columns = np.nonzero(rounded)
            entries = (rows, columns, rounded[rows, columns])
        self._offer_upper(float(np.vdot(rounded, problem.cost)), weights, entries, exact=True)

    def _offer_upper(
        self, value: float, weights: tuple[Float64, Float64], coupling: Coupling | None, *, exact: bool
    ) -> None:
        if value < self.upper:
            self.upper, self.weights, self.coupling, self.exact = value, weights, coupling, exact


def solve(
    problem: RobustProblem,
    *,
    solver: Solver = "certified",
    epsilon: float = 0.01,
    tolerance: float = 5e-3,
    start: tuple[Float64, Float64] | None = None,
    plain: float = 0.0,
    coupling: bool = False,
    device: torch.device | str = "cpu",
) -> RobustTransport:
    """Solve ``problem`` until its relative gap is within ``tolerance``.

    Args:
        solver: ``certified`` bounds from above by exact transport between the reweighted sides (network simplex),
            ``entropic`` by rounding the smoothed coupling to them, in O(n m) and a little above.
        epsilon: first smoothing that is bounded, as a fraction of the median positive cost; it falls threefold until
            the gap is small enough.
        start: potentials of a neighbouring problem, e.g. of the plain one or of another radius.
        plain: cost of plain transport, for the scale of the gap where the value nears zero.
        coupling: also return the coupling.
    """
    began = time.perf_counter()
    positive = problem.cost[problem.cost > 0.0]
    if not len(positive):
        return _free(problem, coupling)
    scale = float(np.median(positive))
    smoothed = SmoothedDual(problem, device=device)
    bracket = _Bracket(problem, plain or scale, coupling)
    bracket.offer_nearest()
    relative = 0.0
    if bracket.gap > _EXACT:
        f, g = start or tighten(problem.cost, np.zeros(len(problem.b)))
        if problem.rho_a <= 0.0 and problem.rho_b <= 0.0 and solver == "certified":
            bracket.certify(tighten(problem.cost, g), problem.reweighted(f, g))
        else:
            relative = _anneal(bracket, smoothed, (f, g), epsilon, scale, solver, tolerance)
    return RobustTransport(
        lower=min(bracket.lower, bracket.upper),
        upper=bracket.upper,
        gap=bracket.gap,
        converged=bracket.exact and bracket.gap <= tolerance,
        weights_a=bracket.weights[0],
        weights_b=bracket.weights[1],
        f=bracket.potentials[0],
        g=bracket.potentials[1],
        epsilon=relative,
        iterations=smoothed.iterations,
        evaluations=smoothed.evaluations,
        seconds=time.perf_counter() - began,
        coupling=bracket.coupling,
    )


def _anneal(
    bracket: _Bracket,
    smoothed: SmoothedDual,
    start: tuple[Float64, Float64],
    epsilon: float,
    scale: float,
    solver: Solver,
    tolerance: float,
) -> float:
    """Smooth less and less until the gap is small enough; returns the last smoothing, in units of ``scale``."""
    f, g = start
    relative = epsilon
    for relative in (*(stage for stage in _STAGES if stage > epsilon), epsilon):
        f, g = smoothed.maximise(f, g, relative * scale)
    while True:
        _bound(bracket, smoothed, (f, g), relative * scale, solver, tolerance)
        if bracket.gap <= tolerance or relative <= _SMALLEST:
            return relative
        relative = max(relative / 3.0, _SMALLEST)
        if relative < _SINGLE_ABOVE:
            smoothed.widen()
        f, g = smoothed.maximise(f, g, relative * scale)


def _bound(
    bracket: _Bracket,
    smoothed: SmoothedDual,
    potentials: tuple[Float64, Float64],
    epsilon: float,
    solver: Solver,
    tolerance: float,
) -> None:
    tight = tighten(bracket.problem.cost, potentials[1])
    bracket.offer_lower(*tight)
    candidates = (bracket.problem.reweighted, lambda f, g: smoothed.marginal_weights(f, g, epsilon))
    for candidate in candidates:
        weights = candidate(*potentials)
        if solver == "certified":
            bracket.certify(tight, weights)
        else:
            bracket.round(smoothed.coupling(*potentials, epsilon), weights)
        if bracket.gap <= tolerance:
            return


def _free(problem: RobustProblem, coupling: bool) -> RobustTransport:
    """Every cost is zero: nothing moves, and no weight changes."""
    n, m = problem.cost.shape
    rows, columns = np.indices((n, m)).reshape(2, -1)
    entries = (rows, columns, np.outer(problem.a, problem.b).ravel()) if coupling else None
    ones = (np.ones(n), np.ones(m), np.zeros(n), np.zeros(m))
    return RobustTransport(0.0, 0.0, 0.0, True, *ones, 0.0, 0, 0, 0.0, entries)
