"""Quality of embeddings, as numbers: on unit rows float ``(N, m)``, whoever made them."""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.stats import skew
from torch import Tensor
from torch.nn import functional as F

from models.align_uniform.losses import squared_distances
from models.core.inputs import Float64, Int64
from models.core.probes import nearest

_CHUNK = 1024


def uniformity_of(x: Tensor, t: float = 2.0) -> float:
    """L_uniform of many rows, in blocks: memory is linear in N.

    Raises:
        ValueError: fewer than two rows.
    """
    count = len(x)
    if count < 2:
        raise ValueError(f"uniformity needs at least two rows, got {count}")
    rows = x.double()
    parts = []
    for start in range(0, count, _CHUNK):
        exponent = -t * squared_distances(rows[start : start + _CHUNK], rows)
        exponent.diagonal(start).fill_(-torch.inf)
        parts.append(torch.logsumexp(exponent.flatten(), dim=0))
    return torch.logsumexp(torch.stack(parts), dim=0).item() - math.log(count * (count - 1))


def class_uniformity(x: Tensor, labels: Int64, classes: int, t: float = 2.0) -> list[float | None]:
    """L_uniform inside each class (0 is one point; lower is more spread); None for a class of fewer than two."""
    found = []
    for label in range(classes):
        members = x[torch.from_numpy(labels == label)]
        found.append(uniformity_of(members, t) if len(members) > 1 else None)
    return found


def effective_rank(x: Tensor) -> float:
    """Roy & Vetterli (2007): exp of the entropy of the normalised singular values of the centred rows.

    1 when all rows lie on one line, at most ``min(N - 1, m)``; 0 for coincident rows.
    """
    rows = x.double()
    values = torch.linalg.svdvals(rows - rows.mean(dim=0))
    total = values.sum()
    if total <= 1e-9 * len(rows):
        return 0.0
    shares = values / total
    return torch.exp(-torch.special.xlogy(shares, shares).sum()).item()


def hubness(x: Tensor, k: int) -> dict[str, float]:
    """How unevenly rows appear among the k nearest neighbours of others (Radovanovic et al. 2010).

    Returns:
        ``skewness`` of the k-occurrence counts (0 is even), ``largest`` count, ``orphans``: the share of rows that
        are nobody's neighbour.
    """
    counts = torch.bincount(nearest(x, k).flatten(), minlength=len(x)).numpy()
    spread = float(counts.std())
    return {
        "skewness": float(skew(counts)) if spread > 0 else 0.0,
        "largest": float(counts.max()),
        "orphans": float(np.mean(counts == 0)),
    }


def circle_angles(x: Tensor) -> Float64:
    """Angles ``(N,)`` in radians of the rows projected to their two main principal axes and then to the circle.

    Rows of two dimensions are on the circle already and keep their angle.
    """
    rows = x.double()
    if rows.shape[1] > 2:
        centred = rows - rows.mean(dim=0)
        _, _, axes = torch.linalg.svd(centred, full_matrices=False)
        rows = F.normalize(centred @ axes[:2].T, dim=1)
    angles: Float64 = torch.atan2(rows[:, 1], rows[:, 0]).numpy()
    return angles


def angle_density(angles: Float64, at: Float64, concentration: float = 60.0) -> Float64:
    """Von Mises kernel density of ``angles`` at the angles ``at``; integrates to one over the circle."""
    from scipy.special import i0e

    kernel = np.exp(concentration * (np.cos(at[:, None] - angles[None, :]) - 1))
    density: Float64 = kernel.mean(axis=1) / (2 * np.pi * i0e(concentration))
    return density
