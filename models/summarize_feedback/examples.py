"""Pairs of text and summary as padded tensors, in batches of texts of similar length."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Tokenizer
from torch import Tensor

from models.core.dataset import Dataset
from models.core.inputs import InputError, Int64
from models.core.method import MethodError
from models.summarize_feedback.network import Shape
from models.summarize_feedback.tokenizer import BOS, PAD, clean, encode_summaries, windows_of

Bools = npt.NDArray[np.bool_]
_KEY_WORDS = 4
_POOL = 32  # batches that are sorted by length together


@dataclass(frozen=True, eq=False)
class Examples:
    """Tokenised pairs.

    Attributes:
        sources: int64 ``(N, S)``, padded on the right.
        summaries: int64 ``(N, T)``, each ending with <eos> unless it was cut, padded on the right.
        longer: how many texts do not fit the context, so that their beginning and end are read.
    """

    sources: Tensor
    summaries: Tensor
    longer: int

    def __len__(self) -> int:
        return len(self.sources)

    @cached_property
    def lengths(self) -> tuple[Int64, Int64]:
        """Tokens of each text and of each summary."""
        texts, summaries = ((side != PAD).sum(dim=1).cpu().numpy() for side in (self.sources, self.summaries))
        return texts, summaries

    def to(self, device: torch.device | str) -> Examples:
        """The same examples on a device."""
        return Examples(self.sources.to(device), self.summaries.to(device), self.longer)

    def batch(self, chosen: Int64 | slice) -> tuple[Tensor, Tensor]:
        """Some texts and summaries, each without the columns that hold nothing but padding."""
        rows = chosen if isinstance(chosen, slice) else torch.from_numpy(chosen).to(self.sources.device)
        text, summary = (int(side[chosen].max()) for side in self.lengths)
        return self.sources[rows, :text], self.summaries[rows, :summary]


def pad(rows: Sequence[Sequence[int]]) -> Tensor:
    """Int64 ``(N, longest)``, filled with <pad> on the right."""
    width = max(map(len, rows))
    padded = np.full((len(rows), width), PAD, dtype=np.int64)
    for position, row in enumerate(rows):
        padded[position, : len(row)] = row
    return torch.from_numpy(padded)


def trim(tokens: Tensor) -> Tensor:
    """``(N, T)`` without the columns that hold nothing but padding."""
    return tokens[:, : max(1, int((tokens != PAD).sum(dim=1).max()))]


def shift_right(summaries: Tensor) -> Tensor:
    """What the decoder reads: <bos>, then all but the last token."""
    return torch.cat([torch.full_like(summaries[..., :1], BOS), summaries[..., :-1]], dim=-1)


def pairs_of(dataset: Dataset) -> list[tuple[str, str]]:
    """The pairs of (text, summary).

    Raises:
        MethodError: the data set holds something else, or a text or summary is empty; names the position.
    """
    if dataset.kind != "pairs":
        raise MethodError(f"dataset: it holds {dataset.kind}, not pairs of a text and its summary")
    pairs = [(str(item[0]), str(item[1])) for item in dataset.inputs]
    for position, (text, summary) in enumerate(pairs):
        if not text.strip() or not summary.strip():
            raise MethodError(f"dataset: the text or the summary of sample {position} is empty")
    return pairs


def encode_pairs(tokenizer: Tokenizer, pairs: Sequence[tuple[str, str]], shape: Shape) -> Examples:
    """Tokenise pairs, fitted to the lengths of ``shape``."""
    sources, longer = encode_sources(tokenizer, [text for text, _ in pairs], shape)
    summaries = encode_summaries(tokenizer, [summary for _, summary in pairs], shape.summary_tokens)
    return Examples(sources, pad(summaries), int(longer.sum()))


def encode_sources(tokenizer: Tokenizer, texts: Sequence[str], shape: Shape) -> tuple[Tensor, Bools]:
    """Int64 ``(N, S)``, a text beyond the context as its beginning and its end; and which texts those are.

    Raises:
        InputError: a text is empty; names its position when there are several.
    """
    tokens = encode_texts(tokenizer, texts)
    longer = np.array([len(row) > shape.source_tokens for row in tokens])
    return pad([windows_of(row, shape.source_tokens, 1)[0] for row in tokens]), longer


def encode_texts(tokenizer: Tokenizer, texts: Sequence[str]) -> list[list[int]]:
    """All tokens of each text.

    Raises:
        InputError: a text is empty; names its position when there are several.
    """
    cleaned = [clean(text) for text in texts]
    if not all(cleaned):
        raise InputError(f"text {cleaned.index('')}: the text is empty" if len(texts) > 1 else "the text is empty")
    return [list(found.ids) for found in tokenizer.encode_batch(cleaned, add_special_tokens=False)]


def left_for_feedback(texts: Sequence[str], share: float) -> Bools:
    """Which texts the supervised stage leaves to the stages that learn from feedback, ``(N,)``.

    Texts that begin with the same four words stay on one side: they are variants of one, with nearly the same summary.
    """
    keys = [" ".join(clean(text).lower().split()[:_KEY_WORDS]) for text in texts]
    counted = Counter(keys)
    order = sorted(counted, key=lambda key: sha256(key.encode()).digest())
    before = np.cumsum([0, *(counted[key] for key in order)])[:-1]
    left = {key for key, first in zip(order, before, strict=True) if first < share * len(texts)}
    return np.array([key in left for key in keys])


def length_batches(lengths: Int64, size: int, generator: np.random.Generator) -> Iterator[Int64]:
    """One epoch of shuffled batches, each of similar lengths; a rest that fills no batch is left out.

    Sorting happens within pools of 32 batches only, so that batches stay random.
    """
    order = generator.permutation(len(lengths))
    count = max(1, len(order) // size)
    for start in range(0, count, _POOL):
        pool = order[start * size : min(start + _POOL, count) * size]
        pool = pool[np.argsort(lengths[pool], kind="stable")]
        batches = [pool[first : first + size] for first in range(0, len(pool), size)]
        for index in generator.permutation(len(batches)):
            yield batches[index]
