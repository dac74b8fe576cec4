"""How good are features? Linear probe, k-nearest neighbours and probes with few labels.

All take rows of float ``(N, D)`` and int64 labels ``(N,)`` in ``0..classes - 1``; accuracies are shares in [0, 1].
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.nn import functional as F

from models.core.inputs import Int64

Features = npt.NDArray[np.floating]
_CHUNK = 2048


def linear_probe(
    train: Features, train_labels: Int64, test: Features, test_labels: Int64, *, inverse_penalty: float = 0.1
) -> float:
    """Test accuracy of multinomial logistic regression on standardised frozen features.

    Args:
        inverse_penalty: scikit-learn's C, the inverse strength of the L2 penalty.
    """
    mean, scale = train.mean(axis=0), train.std(axis=0)
    scale = np.where(scale > 1e-6 * max(1e-12, float(scale.max())), scale, 1.0)
    probe = LogisticRegression(C=inverse_penalty, max_iter=300, tol=1e-3)
    probe.fit((train - mean) / scale, train_labels)
    return float(np.mean(probe.predict((test - mean) / scale) == test_labels))


def knn_predict(
    gallery: Features, gallery_labels: Int64, queries: Features, *, k: int = 20, leave_one_out: bool = False
) -> Int64:
    """Majority class of the k most similar rows by cosine, ties broken by the summed similarity.

    Args:
        leave_one_out: the queries are the gallery, and a row is not its own neighbour.

    Raises:
        ValueError: the gallery has no k other rows.
    """
    if k > len(gallery) - leave_one_out:
        raise ValueError(f"k: {k} neighbours were asked for among {len(gallery) - leave_one_out} rows")
    rows = F.normalize(torch.as_tensor(np.asarray(gallery, dtype=np.float32)), dim=1)
    asked = F.normalize(torch.as_tensor(np.asarray(queries, dtype=np.float32)), dim=1)
    labels = torch.as_tensor(gallery_labels)
    found = []
    for start in range(0, len(asked), _CHUNK):
        similarity = asked[start : start + _CHUNK] @ rows.T
        if leave_one_out:
            similarity.diagonal(start).fill_(-torch.inf)
        found.append(vote(similarity, labels, k))
    predicted: Int64 = torch.cat(found).numpy()
    return predicted


def vote(similarity: Tensor, labels: Tensor, k: int) -> Tensor:
    """Majority class (int64) of the k most similar columns of each row, ties broken by the summed similarity.

    Args:
        similarity: float ``(M, N)``, in [-1, 1].
        labels: int64 ``(N,)`` of the columns.
    """
    values, neighbours = similarity.topk(k, dim=1)
    votes = torch.zeros(len(similarity), int(labels.max()) + 1)
    votes.scatter_add_(1, labels[neighbours], 1 + values / (2 * k + 1))
    return votes.argmax(dim=1)


def knn_accuracy(
    gallery: Features, gallery_labels: Int64, queries: Features, query_labels: Int64, *, k: int = 20
) -> float:
    """Accuracy of :func:`knn_predict` on labelled queries."""
    return float(np.mean(knn_predict(gallery, gallery_labels, queries, k=k) == query_labels))


def stratified_subset(labels: Int64, share: float, seed: int) -> Int64:
    """Indices of about ``share`` of every class, at least one of each, drawn from ``seed``."""
    generator = np.random.default_rng(seed)
    chosen = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        chosen.append(generator.permutation(members)[: max(1, round(share * len(members)))])
    return np.sort(np.concatenate(chosen)).astype(np.int64)


def nearest(features: Tensor, k: int) -> Tensor:
    """Indices ``(N, k)`` of the k most similar other rows by cosine."""
    unit = F.normalize(features, dim=1)
    found = []
    for start in range(0, len(unit), _CHUNK):
        similarity = unit[start : start + _CHUNK] @ unit.T
        similarity.diagonal(start).fill_(-torch.inf)
        found.append(similarity.topk(k, dim=1).indices)
    return torch.cat(found)
