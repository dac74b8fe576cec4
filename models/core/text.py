"""Text as vectors without a pretrained model: hashed TF-IDF counts reduced by latent semantic analysis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import scipy.sparse
import torch
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.utils.extmath import randomized_svd
from torch import nn

from models.core.dataset import Dataset
from models.core.inputs import Float32, Int64

BUCKETS, DIMENSIONS = 1 << 15, 128


class TextTransform(nn.Module):
    """Texts to float32 ``(N, D)``: ``(1 + log tf) * idf`` of hashed words and word pairs, unit length, projected.

    Buffers: ``idf`` float32 ``(2^15,)`` and ``components`` float32 ``(D, 2^15)``, the leading right singular
    vectors of the texts it was fitted on (Deerwester et al., 1990).
    """

    idf: torch.Tensor
    components: torch.Tensor

    def __init__(self, dimensions: int = DIMENSIONS) -> None:
        super().__init__()
        self.register_buffer("idf", torch.ones(BUCKETS))
        self.register_buffer("components", torch.zeros(dimensions, BUCKETS))

    @classmethod
    def fit(cls, texts: Sequence[str], seed: int) -> TextTransform:
        """Learn weights and directions from ``texts``; no labels are seen."""
        counts = _counts(texts)
        frequency = np.bincount(counts.indices, minlength=BUCKETS)
        transform = cls(max(2, min(DIMENSIONS, len(texts) - 1)))
        idf = np.log((1 + len(texts)) / (1 + frequency)) + 1
        transform.idf = torch.from_numpy(idf.astype(np.float32))
        weighted = _weigh(counts, idf)
        _, _, components = randomized_svd(weighted, n_components=len(transform.components), random_state=seed)
        transform.components = torch.from_numpy(np.ascontiguousarray(components, dtype=np.float32))
        return transform

    def vectors(self, texts: Sequence[str]) -> Float32:
        """The projected texts, float32 ``(N, D)``; zeros for a text without any word."""
        weighted = _weigh(_counts(texts), self.idf.cpu().numpy())
        return np.asarray(weighted @ self.components.cpu().numpy().T, dtype=np.float32)


def vectorise(dataset: Dataset, rows: Int64, seed: int) -> tuple[Dataset, TextTransform | None]:
    """Texts as vectors, by a transform that is fitted on those at ``rows``; any other data set as it is."""
    if dataset.kind != "text":
        return dataset, None
    transform = TextTransform.fit(dataset.select(rows).texts(), seed)
    return replace(dataset, kind="vectors", inputs=transform.vectors(dataset.texts())), transform


def _counts(texts: Sequence[str]) -> scipy.sparse.csr_matrix:
    hashing = HashingVectorizer(n_features=BUCKETS, ngram_range=(1, 2), alternate_sign=False, norm=None)
    return hashing.transform(list(texts))


def _weigh(
    counts: scipy.sparse.csr_matrix, idf: np.ndarray[tuple[int], np.dtype[np.floating]]
) -> scipy.sparse.csr_matrix:
    weighted = counts.astype(np.float32)
    weighted.data = (1 + np.log(weighted.data)) * idf[weighted.indices].astype(np.float32)
    lengths = np.sqrt(np.asarray(weighted.multiply(weighted).sum(axis=1)).ravel())
    return scipy.sparse.diags(1 / np.maximum(lengths, 1e-12)) @ weighted
