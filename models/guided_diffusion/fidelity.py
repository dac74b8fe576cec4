"""Distances between sets of pictures on a network's features: Frechet distance, inception score, precision, recall.

Heusel et al. 2017 (FID), Nash et al. 2021 (sFID), Salimans et al. 2016 (inception score), Kynkaanniemi et al. 2019
(precision and recall). On the judge's 64 features of Fashion-MNIST the distance is called ``fid_fmnist64``: it is not
comparable with FID on Inception's features.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial.distance import cdist

from models.core.inputs import Float32, Float64


def frechet_distance(a: Float64, b: Float64) -> float:
    """``|m - m'|^2 + tr(S + S' - 2 (S S')^(1/2))`` of rows ``(n, d)`` and ``(m, d)``.

    The trace of the root is the sum of the roots of the eigenvalues of ``S^(1/2) S' S^(1/2)``, which is symmetric.

    Raises:
        ValueError: fewer than two rows on a side.
    """
    if min(len(a), len(b)) < 2:
        raise ValueError("a Frechet distance needs two rows a side")
    means = a.mean(axis=0) - b.mean(axis=0)
    first, second = np.atleast_2d(np.cov(a, rowvar=False)), np.atleast_2d(np.cov(b, rowvar=False))
    values, vectors = np.linalg.eigh(first)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ second @ root).clip(min=0)).sum()
    return max(0.0, float(means @ means + np.trace(first) + np.trace(second) - 2 * cross))


def inception_score(probabilities: Float32) -> float:
    """``exp(E[KL(p(y|x) || p(y))])`` of rows ``(n, classes)``: from 1 to the number of classes."""
    p = probabilities.astype(np.float64).clip(min=1e-12)
    return float(np.exp((p * (np.log(p) - np.log(p.mean(axis=0)))).sum(axis=1).mean()))


def precision_recall(real: Float64, generated: Float64, neighbours: int = 3) -> tuple[float, float]:
    """Shares of generated rows within the real ones' manifold and the reverse; balls reach the k-th neighbour.

    Raises:
        ValueError: a side has no k-th neighbour.
    """
    if min(len(real), len(generated)) <= neighbours:
        raise ValueError(f"precision and recall need more than {neighbours} rows a side")
    between = cdist(real, generated)
    return (
        float((between <= _radii(real, neighbours)[:, None]).any(axis=0).mean()),
        float((between <= _radii(generated, neighbours)[None, :]).any(axis=1).mean()),
    )


def _radii(rows: Float64, neighbours: int) -> Float64:
    radii: Float64 = np.partition(cdist(rows, rows), neighbours, axis=1)[:, neighbours]
    return radii
