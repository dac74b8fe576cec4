"""Is the data as the theorems assume? Clusters of unit rows, and where labels live in a random network's kernel."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn.cluster import KMeans

from models.core.inputs import Float64, Int64
from models.early_stopping.theory import initial_weights, kernel

WIDTH = 1000
KINDS_A_CLASS = 2  # clusters that are looked for in each class


def unit_rows(inputs: Float64) -> Float64:
    """Centred rows of length 1, ``(n, D)``; constant ones become zero."""
    centred = inputs.reshape(len(inputs), -1) - inputs.reshape(len(inputs), -1).mean(axis=0)
    return np.asarray(centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12))


def clusterability(rows: Float64, classes: int, seed: int) -> dict[str, Any]:
    """How far the rows are from the theorems' clusters: radii of k-means clusters against the gaps between centres.

    The theorems need every radius to be at most half of the least gap, and by far.
    """
    count = min(KINDS_A_CLASS * classes, len(rows))
    found = KMeans(count, n_init=2, random_state=seed).fit(rows)
    radius = np.linalg.norm(rows - found.cluster_centers_[found.labels_], axis=1)
    gaps = np.linalg.norm(found.cluster_centers_[:, None] - found.cluster_centers_[None], axis=2)
    least = float(gaps[~np.eye(count, dtype=bool)].min()) if count > 1 else 0.0
    return {
        "clusters": count, "mean_radius": float(radius.mean()), "radius_95": float(np.quantile(radius, 0.95)),
        "least_gap": least, "separated": bool(np.quantile(radius, 0.95) <= least / 2),
    }  # fmt: skip


def label_energy(rows: Float64, labels: Int64, wrong: Int64 | None, classes: int, seed: int) -> dict[str, Any]:
    """Shares of the labels' energy in the leading eigenvectors of the kernel of a random ReLU network.

    Gradient descent fits what lies in the leading eigenvectors first. ``wrong`` are labels with noise added; the
    energy of their difference is the noise's. Labels are centred one-hot rows.
    """
    weights = initial_weights(WIDTH, rows.shape[1], seed)
    values, vectors = np.linalg.eigh(kernel(weights, rows, "relu"))
    values, vectors = np.maximum(values[::-1], 0), vectors[:, ::-1]
    truth = _one_hot(labels, classes)
    ranks = sorted({min(rank, len(rows)) for rank in (classes, 2 * classes, 5 * classes, len(rows) // 4)})
    signals = {"labels": truth - truth.mean(axis=0)}
    if wrong is not None and (wrong != labels).any():
        signals["noise"] = _one_hot(wrong, classes) - truth
    total = float(values.sum())
    return {
        "samples": len(rows),
        "rows": [
            {"rank": rank, "eigenvalues": float(values[:rank].sum()) / total}
            | {name: _share(vectors[:, :rank], signal) for name, signal in signals.items()}
            for rank in ranks
        ],
    }


def _one_hot(labels: Int64, classes: int) -> Float64:
    return np.eye(classes)[labels]


def _share(vectors: Float64, signal: Float64) -> float:
    energy = float(np.square(signal).sum())
    return float(np.square(vectors.T @ signal).sum()) / energy if energy else 0.0
