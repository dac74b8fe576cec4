"""Distances between sets of pictures on a network's features: Frechet distance, inception score, precision, recall.

Heusel et al. 2017 (FID), Nash et al. 2021 (sFID), Salimans et al. 2016 (inception score), Kynkaanniemi et al. 2019
(precision and recall). On the judge's 64 features of Fashion-MNIST the distance is called ``fid_fmnist64``: it is not
comparable with FID on Inception's features.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

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


def precision_recall(
    real: Float64, generated: Float64, neighbours: int = 3, device: torch.device | str = "cpu"
) -> tuple[float, float]:
    """Shares of generated rows within the real ones' manifold and the reverse; balls reach the k-th neighbour.

    Args:
        device: where the distances, float64, are computed.

    Raises:
        ValueError: a side has no k-th neighbour.
    """
    if min(len(real), len(generated)) <= neighbours:
        raise ValueError(f"precision and recall need more than {neighbours} rows a side")
    ours, theirs = (torch.from_numpy(rows).to(device) for rows in (real, generated))
    between = _distances(ours, theirs)
    within_real = (between <= _radii(ours, neighbours)[:, None]).any(dim=0)
    within_generated = (between <= _radii(theirs, neighbours)[None, :]).any(dim=1)
    return within_real.double().mean().item(), within_generated.double().mean().item()


def _distances(a: Tensor, b: Tensor) -> Tensor:
    """Without the expansion by products, whose rounding would put a row at some distance from itself."""
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def _radii(rows: Tensor, neighbours: int) -> Tensor:
    return _distances(rows, rows).topk(neighbours + 1, dim=1, largest=False).values[:, -1]
