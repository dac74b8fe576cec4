"""Entropic optimal transport: stabilised Sinkhorn iterations, annealed and over-relaxed.

.. math:: \\min_{\\pi \\in \\Pi(a, b)} \\langle \\pi, C \\rangle + \\varepsilon\\, KL(\\pi \\,|\\, a \\otimes b)

The potentials live in the log domain (float64); between two absorptions, iterations are matrix-vector products with a
fixed kernel (Schmitzer 2019), several times cheaper than a log-sum-exp over the matrix. Epsilon falls fourfold from
the largest cost. Over-relaxation (Thibault et al. 2021) takes its factor from the observed rate of convergence, by the
relation between that rate and the optimal factor (Lehmann et al. 2022). Batches share one loop; the same code runs on
a GPU.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from models.core.transport.kernel import CostRows, Costs, absorb_both, absorb_rows, times, times_transposed

_ANNEALING = 0.25
_STAGE_TOLERANCE = 0.1
_STAGE_ITERATIONS = 200
_WINDOW, _LAG = 10, 6
# Rounding errors grow with factor / (2 - factor): beyond, float32 cannot reach a marginal error of 1e-5.
_LARGEST_FACTOR = 1.9
_LARGEST_SCALING = 1e6


@dataclass(frozen=True, eq=False)
class Sinkhorn:
    """Entropic couplings of a batch of problems.

    The coupling is ``a_i left_i kernel_ij right_j``; :mod:`models.core.transport.coupling` rounds it to its marginals.

    Attributes:
        value: float64 ``(B,)``, the entropic cost ``<pi, C> + eps KL(pi | a x b)`` by its dual.
        f: float64 ``(B, n)`` potential of side a, ``f_i = -eps log sum_j b_j exp((g_j - C_ij) / eps)``.
        g: float64 ``(B, m)`` potential of side b.
        kernel: ``(B, n, m)`` around absorbed potentials, ``b`` included.
        left: float64 ``(B, n)``, ``a`` included.
        right: float64 ``(B, m)``.
        marginal_error: float64 ``(B,)``, largest L1 distance of a marginal of the coupling from its weights.
        converged: bool ``(B,)``, the marginal error is within the tolerance.
        iterations: pairs of kernel products, over all epsilons.
    """

    value: Tensor
    f: Tensor
    g: Tensor
    kernel: Tensor
    left: Tensor
    right: Tensor
    marginal_error: Tensor
    converged: Tensor
    iterations: int


def sinkhorn(
    a: Tensor,
    b: Tensor,
    cost: Tensor | CostRows,
    epsilon: Tensor | float,
    *,
    tolerance: float = 1e-5,
    max_iterations: int = 5000,
    dtype: torch.dtype = torch.float32,
) -> Sinkhorn:
    """Solve one problem, or a batch of equal shapes.

    Args:
        a: float64 ``(n,)`` or ``(B, n)``, positive, summing to one.
        b: float64 ``(m,)`` or ``(B, m)``, likewise.
        cost: ``(n, m)`` or ``(B, n, m)``, non-negative and finite; or a streamed matrix, which is read about ten times.
        epsilon: absolute regularisation, positive; a number or ``(B,)``.
        tolerance: L1 marginal error to stop at; below 5e-6 needs float64.
        max_iterations: at the last epsilon, after which the result says ``converged`` false.
        dtype: precision of the kernel.
    """
    problem = _Problem(Costs(cost), _batched(a), _batched(b), dtype)
    stages = _schedule(problem.costs, epsilon)
    total = 0
    for stage in stages[:-1]:
        total += problem.run(stage, max(tolerance, _STAGE_TOLERANCE), _STAGE_ITERATIONS)
    total += problem.run(stages[-1], tolerance, max_iterations)
    return problem.result(tolerance, total)


class _Problem:
    """A batch of problems at one epsilon: absorbed potentials, their kernel, and the scalings since."""

    def __init__(self, costs: Costs, a: Tensor, b: Tensor, dtype: torch.dtype) -> None:
        self.costs, self.a, self.b = costs, a, b
        self.log_b = b.log()
        self.kernel = torch.empty(costs.shape, dtype=dtype, device=a.device)
        self.epsilon = torch.ones(len(a), dtype=torch.float64, device=a.device)
        self.f, self.g = torch.zeros_like(a), torch.zeros_like(b)
        self.u, self.v = torch.ones_like(a), torch.ones_like(b)
        self.error = torch.full_like(self.epsilon, torch.inf)

    def run(self, epsilon: Tensor, tolerance: float, limit: int) -> int:
        """Iterate at ``epsilon`` until every marginal error is within ``tolerance``; the iterations it took."""
        self._absorb(epsilon)
        factor = torch.ones_like(self.error)[:, None]
        errors: list[Tensor] = []
        for iteration in range(1, limit + 1):
            columns = times_transposed(self.kernel, self.a * self.u)
            self.v = _relaxed(self.v, self.b / columns, factor)
            rows = times(self.kernel, self.v)
            self.error = torch.maximum(
                (self.v * columns - self.b).abs().sum(1), (self.a * (self.u * rows - 1.0).abs()).sum(1)
            )
            errors.append(self.error)
            if iteration == limit or bool((self.error <= tolerance).all()):
                return iteration
            self.u = _relaxed(self.u, rows.reciprocal(), factor)
            if iteration % _WINDOW == 0:
                factor = _factor(factor, errors[-1] / errors[-1 - _LAG])
            if _strayed(self.u, self.v):
                self._absorb(epsilon)
        return limit

    def _absorb(self, epsilon: Tensor) -> None:
        self.g = self.g + self.epsilon[:, None] * self.v.log()
        self.epsilon = epsilon
        self.f = absorb_rows(self.costs, self.kernel, self.g, self.log_b, epsilon)
        self.u, self.v = torch.ones_like(self.u), torch.ones_like(self.v)

    def result(self, tolerance: float, iterations: int) -> Sinkhorn:
        """The coupling as it stands."""
        f = self.f + self.epsilon[:, None] * self.u.log()
        g = self.g + self.epsilon[:, None] * self.v.log()
        left = self.a * self.u
        mass = (left * times(self.kernel, self.v)).sum(1)
        value = (self.a * f).sum(1) + (self.b * g).sum(1) - self.epsilon * (mass - 1.0)
        converged = self.error <= tolerance
        return Sinkhorn(value, f, g, self.kernel, left, self.v, self.error, converged, iterations)


@dataclass(frozen=True, eq=False)
class SelfTransport:
    """Entropic transport of sets to themselves; both potentials are one.

    Attributes:
        value: float64 ``(B,)`` entropic cost.
        f: float64 ``(B, n)`` potential.
        marginal_error: float64 ``(B,)``, L1.
        converged: bool ``(B,)``.
        iterations: kernel products, over all epsilons.
    """

    value: Tensor
    f: Tensor
    marginal_error: Tensor
    converged: Tensor
    iterations: int


def sinkhorn_self(
    a: Tensor,
    cost: Tensor | CostRows,
    epsilon: Tensor | float,
    *,
    tolerance: float = 1e-5,
    max_iterations: int = 5000,
    dtype: torch.dtype = torch.float32,
) -> SelfTransport:
    """Solve the symmetric problem of ``a`` against itself by averaged iterations, which converge in a few tens.

    The arguments are those of :func:`sinkhorn`; ``cost`` is symmetric.
    """
    costs, a = Costs(cost), _batched(a)
    kernel = torch.empty(costs.shape, dtype=dtype, device=a.device)
    f, u, log_a = torch.zeros_like(a), torch.ones_like(a), a.log()
    stages = _schedule(costs, epsilon)
    total = 0
    for position, stage in enumerate(stages):
        last = position == len(stages) - 1
        bound, limit = (tolerance, max_iterations) if last else (max(tolerance, _STAGE_TOLERANCE), _STAGE_ITERATIONS)
        absorb_both(costs, kernel, f, log_a, stage)
        for iteration in range(1, limit + 1):
            rows = times(kernel, u)
            error = (a * (u * rows - 1.0).abs()).sum(1)
            total += 1
            if iteration == limit or bool((error <= bound).all()):
                break
            u = (u / rows).sqrt()
            if _strayed(u):
                f = f + stage[:, None] * u.log()
                u = torch.ones_like(u)
                absorb_both(costs, kernel, f, log_a, stage)
        f = f + stage[:, None] * u.log()
        mass = (a * u * rows).sum(1)
        u = torch.ones_like(u)
    value = 2.0 * (a * f).sum(1) - stages[-1] * (mass - 1.0)
    return SelfTransport(value, f, error, error <= tolerance, total)


def _batched(weights: Tensor) -> Tensor:
    return weights[None] if weights.ndim == 1 else weights


def _schedule(costs: Costs, epsilon: Tensor | float) -> list[Tensor]:
    """Falling epsilons ``(B,)``, from the largest cost of each problem to its target."""
    stage = costs.largest()
    target = torch.as_tensor(epsilon, dtype=torch.float64, device=stage.device).expand_as(stage)
    if not bool((target > 0.0).all()):
        raise ValueError("epsilon must be positive")
    stages = []
    while bool((stage > target).any()):
        stages.append(torch.maximum(stage, target))
        stage = stage * _ANNEALING
    return [*stages, target]


def _relaxed(old: Tensor, new: Tensor, factor: Tensor) -> Tensor:
    if bool((factor == 1.0).all()):
        return new
    return old.pow(1.0 - factor) * new.pow(factor)


def _factor(factor: Tensor, ratio: Tensor) -> Tensor:
    """The relaxation factor that the observed rate asks for; it falls back towards one where errors grow.

    A factor ``w`` below the optimum converges at the rate ``r`` with ``(r + w - 1)^2 = r w^2 t``, where ``t`` is the
    rate of plain iterations; the optimal factor is ``2 / (1 + sqrt(1 - t))``.
    """
    rate = ratio[:, None].pow(1.0 / _LAG).clamp_min(1e-6)
    plain = ((rate + factor - 1.0).square() / (rate * factor.square())).clamp_max(1.0)
    proposed = (2.0 / (1.0 + (1.0 - plain).sqrt())).clamp_max(_LARGEST_FACTOR)
    careful = torch.where(rate > 1.05, 0.5 * (1.0 + factor), factor)
    return torch.where(rate < 1.0, torch.maximum(factor, proposed), careful)


def _strayed(*scalings: Tensor) -> bool:
    """Whether a scaling is so far from one that the kernel's smallest entries may count."""
    return any(
        bool((scaling.max() > _LARGEST_SCALING) | (scaling.min() < 1.0 / _LARGEST_SCALING)) for scaling in scalings
    )
