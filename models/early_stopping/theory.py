"""The model of the theorems in float64: clustered inputs, one hidden layer with fixed outer weights, gradient descent.

``f(W, x) = v' phi(W x)`` with ``v`` half ``1/sqrt(k)`` and half ``-1/sqrt(k)``, squared loss, full batch (Li,
Soltanolkotabi & Oymak 2020, section 2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from models.core.inputs import Float64, Int64

Activation = Literal["softplus", "relu", "tanh"]
MAX_ROWS = 4000


def activation(kind: Activation, z: Float64) -> Float64:
    """``phi``."""
    if kind == "relu":
        return np.maximum(z, 0)
    return np.tanh(z) if kind == "tanh" else np.asarray(np.logaddexp(0, z))


def derivative(kind: Activation, z: Float64) -> Float64:
    """``phi'``."""
    if kind == "relu":
        return (z > 0).astype(np.float64)
    return 1 - np.tanh(z) ** 2 if kind == "tanh" else np.asarray(0.5 * (1 + np.tanh(z / 2)))


@dataclass(frozen=True, eq=False)
class Clusters:
    """Clusterable data with some labels replaced.

    Attributes:
        inputs: ``(n, d)``, unit rows within ``eps`` of their centre. centres: ``(K, d)``, unit rows.
        labels: ``(n,)`` as given. truth: ``(n,)``. cluster: int64 ``(n,)``. alphas: the classes' labels.
    """

    inputs: Float64
    centres: Float64
    labels: Float64
    truth: Float64
    cluster: Int64
    alphas: Float64

    @property
    def corrupted(self) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """Where the label is not the true one."""
        return np.asarray(self.labels != self.truth)


def draw_clusters(
    n: int, d: int, clusters: int, eps: float, rate: float, seed: int, alphas: tuple[float, ...] = (-1.0, 1.0)
) -> Clusters:
    """``clusters`` random directions, points at distance ``eps`` or less, ``floor(rate n_l)`` wrong labels in each."""
    generator = np.random.default_rng(seed)
    centres = _unit(generator.normal(size=(clusters, d)))
    cluster = np.arange(n) % clusters
    inputs = centres[cluster]
    if eps > 0:
        offset = _unit(generator.normal(size=(n, d))) * eps * generator.random((n, 1)) ** (1 / d)
        inputs = _unit(inputs + offset)
    levels = np.asarray(alphas)
    classes = np.arange(clusters) % len(levels)
    truth = levels[classes[cluster]]
    labels = truth.copy()
    for index in range(clusters):
        members = np.flatnonzero(cluster == index)
        wrong = generator.permutation(members)[: int(np.floor(rate * len(members)))]
        shift = generator.integers(1, len(levels), len(wrong))
        labels[wrong] = levels[(classes[index] + shift) % len(levels)]
    return Clusters(inputs, centres, labels, truth, cluster.astype(np.int64), levels)


def _unit(rows: Float64) -> Float64:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def outer_weights(k: int) -> Float64:
    """``v`` with norm 1."""
    return np.asarray(np.repeat([1.0, -1.0], [k - k // 2, k // 2]) / np.sqrt(k))


def initial_weights(k: int, d: int, seed: int, *, symmetric: bool = False) -> Float64:
    """Standard normal ``(k, d)``; ``symmetric`` repeats its first half, so that the output starts at zero."""
    drawn = np.random.default_rng(seed).normal(size=(k, d))
    return np.concatenate([drawn[: k // 2]] * 2) if symmetric else drawn


def output(weights: Float64, inputs: Float64, kind: Activation) -> Float64:
    """``f(W, x)`` of each row."""
    return np.asarray(activation(kind, inputs @ weights.T) @ outer_weights(len(weights)))


def gradient(weights: Float64, inputs: Float64, labels: Float64, kind: Activation) -> Float64:
    """Of ``1/2 sum (f - y)^2``: ``sum_i r_i (v o phi'(W x_i)) x_i'``, ``(k, d)``."""
    z = inputs @ weights.T
    residual = activation(kind, z) @ outer_weights(len(weights)) - labels
    return np.asarray((residual[:, None] * derivative(kind, z) * outer_weights(len(weights))).T @ inputs)


def kernel(weights: Float64, inputs: Float64, kind: Activation) -> Float64:
    """``J J' = (X X') o (phi'(X W') diag(v^2) phi'(W X'))``, ``(n, n)``.

    Raises:
        ValueError: more than 4,000 rows.
    """
    if len(inputs) > MAX_ROWS:
        raise ValueError(f"the kernel of {len(inputs)} rows does not fit: at most {MAX_ROWS}")
    slopes = derivative(kind, inputs @ weights.T) * outer_weights(len(weights))
    return np.asarray((inputs @ inputs.T) * (slopes @ slopes.T))


def centre_covariance(centres: Float64, kind: Activation, nodes: int = 80) -> Float64:
    """``Sigma(C) = (C C') o E[phi'(C w) phi'(C w)']`` for unit rows; closed form for ReLU, else Gauss-Hermite."""
    cosine = np.clip(centres @ centres.T, -1, 1)
    if kind == "relu":
        return np.asarray(cosine * (np.pi - np.arccos(cosine)) / (2 * np.pi))
    points, weights = np.polynomial.hermite_e.hermegauss(nodes)
    weights = weights / weights.sum()
    first = derivative(kind, points)[:, None]
    joint = np.empty_like(cosine)
    for index in np.ndindex(cosine.shape):
        rho = cosine[index]
        other = derivative(kind, rho * points[:, None] + np.sqrt(np.maximum(0.0, 1 - rho**2)) * points[None, :])
        joint[index] = weights @ (first * other) @ weights
    return np.asarray(cosine * joint)


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Where labels live in the kernel's eigenvectors.

    Attributes:
        eigenvalues: ``(n,)``, descending. gap: ``lambda_K / lambda_{K+1}``.
        label_share, noise_share: energy of true labels and of the label errors in the top ``K`` eigenvectors.
    """

    eigenvalues: Float64
    gap: float
    label_share: float
    noise_share: float


def spectrum(data: Clusters, weights: Float64, kind: Activation) -> Spectrum:
    """Eigenvalues of the kernel and the shares of labels and noise in its top ``K`` directions."""
    values, vectors = np.linalg.eigh(kernel(weights, data.inputs, kind))
    values, vectors = values[::-1], vectors[:, ::-1]
    top = vectors[:, : len(data.centres)]

    def share(signal: Float64) -> float:
        energy = float(signal @ signal)
        return float(np.sum((top.T @ signal) ** 2)) / energy if energy else 0.0

    gap = values[len(data.centres) - 1] / max(values[len(data.centres)], 1e-300)
    return Spectrum(values, float(gap), share(data.truth), share(data.labels - data.truth))


def linearised_distance(data: Clusters, weights: Float64, labels: Float64, kind: Activation) -> float:
    """Length of the shortest ``dW`` with which the linearised network gives exactly ``labels`` from zero."""
    values, vectors = np.linalg.eigh(kernel(weights, data.inputs, kind))
    projected = vectors.T @ labels
    return float(np.sqrt(np.sum(projected**2 / np.maximum(values, 1e-14 * values[-1]))))


def nearest_label(values: Float64, alphas: Float64) -> Float64:
    """The class label nearest to each output."""
    return np.asarray(alphas[np.abs(values[:, None] - alphas).argmin(axis=1)])


def descend(
    data: Clusters, k: int, steps: int, kind: Activation, seed: int, watch: tuple[int, ...], *, symmetric: bool = False
) -> list[dict[str, float]]:
    """Gradient descent with ``eta = 2 K / (n |C|^2)``; a row at each step of ``watch``."""
    weights = initial_weights(k, data.inputs.shape[1], seed, symmetric=symmetric)
    start = weights.copy()
    eta = 2 * len(data.centres) / (len(data.labels) * np.linalg.norm(data.centres, 2) ** 2)
    rows = []
    for step in range(1, steps + 1):
        weights -= eta * gradient(weights, data.inputs, data.labels, kind)
        if step in watch:
            values = output(weights, data.inputs, kind)
            predicted = nearest_label(values, data.alphas)
            wrong = data.corrupted
            rows.append(
                {
                    "step": float(step),
                    "accuracy": float((predicted == data.truth).mean()),
                    "corrupt_fitted": float((predicted == data.labels)[wrong].mean()) if wrong.any() else 0.0,
                    "loss": float(0.5 * np.sum((values - data.labels) ** 2)),
                    "distance": float(np.linalg.norm(weights - start)),
                }
            )
    return rows
