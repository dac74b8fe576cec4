"""Texts: words as hash buckets, two random views of one text, and the encoder that pools them."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence

import numpy as np
import scipy.sparse
import torch
from sklearn.utils.extmath import randomized_svd
from torch import Tensor, nn
from torch.nn import functional as F

from models.core.augment import uniform
from models.core.inputs import Float64, Int64

PAD, NO_WORD = 0, 1
_WORD = re.compile(r"\w+")


def token_matrix(texts: Sequence[str], buckets: int, max_words: int) -> Tensor:
    """The first words of each text as hash buckets: int32 ``(N, L)``, ``L <= max_words``.

    Words are runs of letters, digits and underscores in lower case, ``2 + crc32 mod (buckets - 2)``. Rows are filled
    with 0 on the right; a text without any word is the single bucket 1.
    """
    found: dict[str, int] = {}
    rows = []
    for text in texts:
        words = _WORD.findall(text.lower())[:max_words]
        rows.append([_bucket(word, found, buckets) for word in words] or [NO_WORD])
    matrix = np.zeros((len(rows), max(map(len, rows), default=1)), dtype=np.int32)
    lengths = np.array([len(row) for row in rows])
    matrix[np.arange(matrix.shape[1]) < lengths[:, None]] = [bucket for row in rows for bucket in row]
    return torch.from_numpy(matrix)


def _bucket(word: str, found: dict[str, int], buckets: int) -> int:
    bucket = found.get(word)
    if bucket is None:
        bucket = found[word] = 2 + zlib.crc32(word.encode("utf-8", "replace")) % (buckets - 2)
    return bucket


def word_view(tokens: Tensor, crop: float, dropout: float, generator: torch.Generator) -> Tensor:
    """One random view of each text: a run of its words, some of them dropped (set to 0).

    The run keeps a share drawn from ``[crop, 1]``; where dropout would take all its words, none is dropped.

    Args:
        tokens: int32 ``(B, L)`` as of :func:`token_matrix`.
        generator: on the CPU or the device of ``tokens``.
    """
    count, length = tokens.shape
    words = (tokens != PAD).sum(dim=1, keepdim=True)
    share, place = uniform((2, count, 1), generator, tokens.device)
    kept = (words * (crop + (1 - crop) * share)).ceil().clamp_min(1)
    start = ((words - kept + 1) * place).floor()
    position = torch.arange(length, device=tokens.device)
    inside = (position >= start) & (position < start + kept)
    chosen = inside & (uniform((count, length), generator, tokens.device) >= dropout)
    chosen |= inside & ~chosen.any(dim=1, keepdim=True)
    view: Tensor = tokens * chosen
    return view


class BagOfWords(nn.Module):
    """The weighted sum of the vectors of a text's words, scaled to unit length.

    Args:
        buckets: hash buckets of words.
        features: length of a word's vector and of the output.
    """

    def __init__(self, buckets: int, features: int) -> None:
        super().__init__()
        self.features = features
        self.vectors = nn.Embedding(buckets, features, padding_idx=PAD)
        self.log_weights = nn.Embedding(buckets, 1)
        nn.init.normal_(self.vectors.weight, std=features**-0.5)
        nn.init.zeros_(self.log_weights.weight)
        with torch.no_grad():
            self.vectors.weight[PAD] = 0

    def forward(self, tokens: Tensor) -> Tensor:
        """Int32 ``(B, L)`` to unit rows ``(B, features)``."""
        weights = self.log_weights(tokens)[..., 0].exp()
        pooled: Tensor = (weights.unsqueeze(1) @ self.vectors(tokens)).squeeze(1)
        return F.normalize(pooled, dim=1)

    @torch.no_grad()
    def start_from(self, tokens: Tensor, seed: int) -> None:
        """Set weights to inverse document frequencies and vectors to the axes of latent semantic analysis.

        Deerwester et al. (1990), on ``(1 + log tf) idf`` rows of unit length. Random vectors need far more text than
        a user has before words of one meaning find each other. Beyond the rank of the texts, vectors start at zero.
        """
        idf, axes = _latent_semantics(tokens, len(self.vectors.weight), self.features, seed)
        self.log_weights.weight[:, 0] = torch.from_numpy(np.log(idf))
        self.vectors.weight.zero_()
        self.vectors.weight[:, : len(axes)] = torch.from_numpy(axes.T.copy())
        self.vectors.weight[PAD] = 0


def _latent_semantics(tokens: Tensor, buckets: int, features: int, seed: int) -> tuple[Float64, Float64]:
    """Inverse document frequencies ``(buckets,)`` and axes ``(k, buckets)``, ``k <= features``."""
    cells = tokens.numpy()
    rows, _ = np.nonzero(cells)
    columns: Int64 = cells[cells != PAD].astype(np.int64)
    counts = scipy.sparse.csr_matrix((np.ones(len(rows)), (rows, columns)), shape=(len(cells), buckets))
    frequency = np.bincount(counts.indices, minlength=buckets)
    idf: Float64 = np.log((1 + len(cells)) / (1 + frequency)) + 1
    counts.data = (1 + np.log(counts.data)) * idf[counts.indices]
    lengths = np.sqrt(np.asarray(counts.multiply(counts).sum(axis=1)).ravel())
    unit = scipy.sparse.diags(1 / lengths) @ counts
    _, values, axes = randomized_svd(unit, n_components=min(features, len(cells) - 1), random_state=seed)
    return idf, np.asarray(axes[values > 1e-6 * values[0]])
