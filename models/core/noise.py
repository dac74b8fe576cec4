"""Injected label noise for experiments: transition matrices and seeded sampling from them."""

from __future__ import annotations

from typing import Literal

import numpy as np

from models.core.inputs import Float64, Int64

NoiseKind = Literal["uniform", "flip"]


def transition_matrix(kind: NoiseKind, rate: float, classes: int) -> Float64:
    """Probability ``T[y, y']`` that a sample of class ``y`` is labelled ``y'``; float64 ``(classes, classes)``.

    ``uniform`` spreads ``rate`` evenly over the other classes; ``flip`` moves it all to class ``y + 1`` modulo
    ``classes`` (asymmetric noise). Both as in Pleiss et al., NeurIPS 2020, section 4.

    Raises:
        ValueError: ``rate`` is outside [0, 1] or there are fewer than two classes.
    """
    if not 0.0 <= rate <= 1.0:
        raise ValueError(f"the noise rate lies in [0, 1], got {rate}")
    if classes < 2:
        raise ValueError(f"label noise needs at least two classes, got {classes}")
    matrix = (1.0 - rate) * np.eye(classes)
    if kind == "uniform":
        return matrix + rate / (classes - 1) * (1.0 - np.eye(classes))
    return matrix + rate * np.roll(np.eye(classes), 1, axis=1)


def corrupt_labels(labels: Int64, classes: int, *, kind: NoiseKind, rate: float, seed: int) -> Int64:
    """Labels drawn from the transition matrix; int64 ``(N,)``, the same for the same seed.

    Each label is drawn independently, so that the realised share of wrong labels varies around ``rate``.

    Raises:
        ValueError: as :func:`transition_matrix`.
    """
    cumulative = np.cumsum(transition_matrix(kind, rate, classes), axis=1)[labels]
    draws = np.random.default_rng(seed).random(len(labels))
    drawn = (draws[:, None] >= cumulative).sum(axis=1)
    return np.asarray(np.minimum(drawn, classes - 1), dtype=np.int64)
