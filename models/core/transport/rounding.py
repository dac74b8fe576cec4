"""From an approximate coupling to one that keeps both marginals."""

from __future__ import annotations

import numpy as np

from models.core.inputs import Float64


def round_coupling(coupling: Float64, a: Float64, b: Float64) -> Float64:
    """The nearest-by coupling with marginals ``a`` and ``b``: float64 ``(n, m)``, non-negative.

    Rows and columns that hold too much are scaled down; what is then missing is laid on by a product of the two
    shortages. It moves at most twice the marginal errors' mass (Altschuler, Weed and Rigollet 2017, algorithm 2).

    Args:
        coupling: non-negative ``(n, m)``; not changed.
        a: float64 ``(n,)``, non-negative.
        b: float64 ``(m,)``, of the same sum.
    """
    found = np.array(coupling, dtype=np.float64)
    found *= _scale_down(found.sum(axis=1), a)[:, None]
    found *= _scale_down(found.sum(axis=0), b)[None, :]
    short_a = np.maximum(0.0, a - found.sum(axis=1))
    short_b = np.maximum(0.0, b - found.sum(axis=0))
    total = short_b.sum()
    if total > 0.0:
        found += np.outer(short_a, short_b / total)
    return found


def _scale_down(sums: Float64, target: Float64) -> Float64:
    scale = np.ones_like(sums)
    np.divide(target, sums, out=scale, where=sums > target)
    return scale
