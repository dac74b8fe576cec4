"""The dual of robust transport, smoothed by entropy, maximised by L-BFGS over both potentials at once.

.. math:: S_{\\rho_a}(f) + S_{\\rho_b}(g)
          - \\varepsilon \\sum_{ij} a_i b_j \\left(e^{(f_i + g_j - C_{ij})/\\varepsilon} - 1\\right)

Its gradient is the marginal error ``(a w - row sums, b v - column sums)`` of the coupling
``a_i b_j exp((f_i + g_j - C_ij)/eps)``. The matrix is visited in blocks of rows that stay in the cache.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize

from models.core.inputs import Float64
from models.robust_ot.dual import feasible_weights, robust_expectation

_BLOCK = 1 << 17
# exp() of less gives denormal float32 numbers, which are ten times slower; of more, infinity in the line search.
_LOWEST, _HIGHEST = -80.0, 60.0


@dataclass(frozen=True, eq=False)
class RobustProblem:
    """One robust transport problem.

    Attributes:
        cost: float64 ``(n, m)``, non-negative.
        a: float64 ``(n,)``, positive, summing to one.
        b: float64 ``(m,)``, likewise.
        rho_a: radius of the chi-square ball around ``a``.
        rho_b: radius of the ball around ``b``.
    """

    cost: Float64
    a: Float64
    b: Float64
    rho_a: float
    rho_b: float

    def dual_value(self, f: Float64, g: Float64) -> float:
        """``S_rho_a(f) + S_rho_b(g)``: a lower bound of the problem wherever ``f_i + g_j <= C_ij``."""
        return robust_expectation(f, self.a, self.rho_a).value + robust_expectation(g, self.b, self.rho_b).value

    def reweighted(self, f: Float64, g: Float64) -> tuple[Float64, Float64]:
        """The weights ``(w, v)`` that attain the dual value: float64 ``(n,)`` and ``(m,)``."""
        return (
            robust_expectation(f, self.a, self.rho_a).weights,
            robust_expectation(g, self.b, self.rho_b).weights,
        )


class SmoothedDual:
    """The smoothed dual of one problem: blocks in float32 until :meth:`widen`, sums in float64.

    Args:
        device: where the blocks are computed.
    """

    def __init__(self, problem: RobustProblem, device: torch.device | str = "cpu") -> None:
        self.problem = problem
        self.evaluations = self.iterations = 0
        self._device = torch.device(device)
        self._rows = max(1, _BLOCK // len(problem.b))
        self._hold(torch.float32)

    def widen(self) -> None:
        """Compute in float64 from now on."""
        if self._cost.dtype != torch.float64:
            self._hold(torch.float64)

    def _hold(self, precision: torch.dtype) -> None:
        problem = self.problem
        self._cost, self._a, self._b = (
            torch.as_tensor(x).to(self._device, precision) for x in (problem.cost, problem.a, problem.b)
        )

    def maximise(self, f: Float64, g: Float64, epsilon: float, *, iterations: int = 1000) -> tuple[Float64, Float64]:
        """Maximise from ``(f, g)`` at smoothing ``epsilon`` (in units of the cost).

        Variables are scaled by the square roots of the weights, which makes the curvature alike in all of them.

        Args:
            iterations: limit of L-BFGS steps.
        """
        n, count = len(f), max(len(f), len(g))
        still = 1e-9 if self._cost.dtype == torch.float32 else 1e-13
        scale = epsilon / np.sqrt(np.concatenate([self.problem.a, self.problem.b]) * count)

        def objective(x: Float64) -> tuple[float, Float64]:
            value, gradient = self._evaluate(x[:n] * scale[:n], x[n:] * scale[n:], epsilon)
            return -value * count / epsilon, -gradient * scale * (count / epsilon)

        found = minimize(
            objective,
            np.concatenate([f, g]) / scale,
            jac=True,
            method="L-BFGS-B",
            options={"maxcor": 20, "maxiter": iterations, "maxfun": 2 * iterations, "ftol": still, "gtol": 1e-7},
        )
        self.iterations += int(found.nit)
        x = np.asarray(found.x) * scale
        return x[:n], x[n:]

    def coupling(self, f: Float64, g: Float64, epsilon: float) -> Float64:
        """The dense coupling of ``(f, g)``, float64 ``(n, m)``; its marginals are only near those wanted."""
        problem = self.problem
        exponent = (f[:, None] + g - problem.cost) / epsilon
        np.clip(exponent, None, _HIGHEST, out=exponent)
        return problem.a[:, None] * np.exp(exponent) * problem.b

    def marginal_weights(self, f: Float64, g: Float64, epsilon: float) -> tuple[Float64, Float64]:
        """The coupling's own marginals as weights ``(w, v)``, moved into the two balls.

        Where the value is zero, the potentials are constant and say nothing of the weights; the marginals still do.
        """
        problem = self.problem
        rows, columns = self._marginals(f, g, epsilon)
        return (
            feasible_weights(rows / problem.a, problem.a, problem.rho_a),
            feasible_weights(columns / problem.b, problem.b, problem.rho_b),
        )

    def _evaluate(self, f: Float64, g: Float64, epsilon: float) -> tuple[float, Float64]:
        self.evaluations += 1
        problem = self.problem
        side_a = robust_expectation(f, problem.a, problem.rho_a)
        side_b = robust_expectation(g, problem.b, problem.rho_b)
        rows, columns = self._marginals(f, g, epsilon)
        value = side_a.value + side_b.value - epsilon * (float(rows.sum()) - 1.0)
        gradient = np.concatenate([problem.a * side_a.weights - rows, problem.b * side_b.weights - columns])
        return value, gradient

    def _marginals(self, f: Float64, g: Float64, epsilon: float) -> tuple[Float64, Float64]:
        u, v = (torch.as_tensor(x / epsilon).to(self._cost) for x in (f, g))
        rows = torch.empty_like(u)
        columns = torch.zeros_like(v)
        buffer = v.new_empty((self._rows, len(v)))
        for start in range(0, len(u), self._rows):
            part = slice(start, min(start + self._rows, len(u)))
            block = torch.add(u[part, None], v, out=buffer[: part.stop - start])
            block.sub_(self._cost[part], alpha=1.0 / epsilon).clamp_(_LOWEST, _HIGHEST).exp_()
            torch.mv(block, self._b, out=rows[part])
            columns.addmv_(block.T, self._a[part])
        return (self._a * rows).double().cpu().numpy(), (self._b * columns).double().cpu().numpy()
