"""Pairs of text and summary as padded tensors, in batches of texts of similar length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from models.core.dataset import Dataset
from models.core.inputs import InputError, Int64
from models.core.method import MethodError
from models.summarize_feedback.network import Shape
from models.summarize_feedback.tokenizer import BOS, PAD, encode_source, encode_summary

_POOL = 32  # batches that are sorted by length together


@dataclass(frozen=True, eq=False)
class Examples:
    """Tokenised pairs.

    Attributes:
        sources: int64 ``(N, S)``, padded on the right.
        summaries: int64 ``(N, T)``, each ending with <eos> unless it was cut, padded on the right.
        truncated: how many texts were longer than the context.
    """

    sources: Tensor
    summaries: Tensor
    truncated: int

    def __len__(self) -> int:
        return len(self.sources)


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
    """Tokenise pairs, cut to the lengths of ``shape``."""
    sources, cut = encode_sources(tokenizer, [text for text, _ in pairs], shape)
    summaries = [encode_summary(tokenizer, summary, shape.summary_tokens) for _, summary in pairs]
    return Examples(sources, pad(summaries), int(cut.sum()))


def encode_sources(
    tokenizer: Tokenizer, texts: Sequence[str], shape: Shape
) -> tuple[Tensor, np.ndarray[tuple[int], np.dtype[np.bool_]]]:
    """Int64 ``(N, S)`` and which of the texts were longer.

    Raises:
        InputError: a text is empty; names its position when there are several.
    """
    rows, cut = [], np.zeros(len(texts), dtype=np.bool_)
    for position, text in enumerate(texts):
        try:
            tokens, cut[position] = encode_source(tokenizer, text, shape.source_tokens)
        except InputError as error:
            raise InputError(f"text {position}: {error}" if len(texts) > 1 else str(error)) from None
        rows.append(tokens)
    return pad(rows), cut


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
