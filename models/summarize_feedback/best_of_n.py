"""Best-of-n sampling: unbiased estimates from one set of samples, and its divergence from the policy."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from models.core.inputs import Float64


def best_of_n_weights(samples: int, n: int) -> Float64:
    """Weight of the i-th smallest of N samples in the expectation under best-of-n: ``C(i - 1, n - 1) / C(N, n)``."""
    total = math.comb(samples, n)
    return np.array([math.comb(i - 1, n - 1) / total for i in range(1, samples + 1)])


def expected_best(scores: Float64, values: Float64, n: int) -> Float64:
    """Expected ``values`` of the sample with the best score among n, for each text.

    Args:
        scores: what is chosen by, ``(B, N)``.
        values: what is measured, ``(B, N)``; the scores themselves give the expected maximum.

    Raises:
        ValueError: n is more than N.
    """
    if not 1 <= n <= scores.shape[1]:
        raise ValueError(f"n ({n}) must be in 1..{scores.shape[1]}")
    order = np.argsort(scores, axis=1, kind="stable")
    weighted: Float64 = np.take_along_axis(values, order, axis=1) @ best_of_n_weights(scores.shape[1], n)
    return weighted


def kl_bound(n: int) -> float:
    """``KL(best-of-n || policy) <= log n - (n - 1) / n`` (Beirami et al. 2024), in nats."""
    return math.log(n) - (n - 1) / n


def kl_exact(probabilities: Sequence[float], n: int) -> float:
    """The divergence for distinct outcomes, the worst first: ``P(best is i) = F_i^n - F_{i-1}^n``."""
    p = np.asarray(probabilities, dtype=np.float64)
    above = np.cumsum(p)
    best = above**n - (above - p) ** n
    held = best > 0
    return float((best[held] * np.log(best[held] / p[held])).sum())
