"""Comparisons of two summaries of a text: simulated ones, and what people stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from tokenizers import Tokenizer
from torch import Tensor

from models.core.feedback import Comparison
from models.core.inputs import Int64
from models.summarize_feedback.bundle import Bundle
from models.summarize_feedback.candidates import drawn_batches, texts_of
from models.summarize_feedback.examples import encode_sources, pad
from models.summarize_feedback.labeller import gold, label, temperature_for
from models.summarize_feedback.network import Shape
from models.summarize_feedback.tokenizer import clean, encode_summaries

LEAD_WORDS = 15
SFT_KINDS = ("sample .7", "sample .7 b", "sample 1", "sample 1 b", "greedy")
KINDS = (*SFT_KINDS, "lead", "reference")
_MAX_TOKENS = 24
_SFT_SHARE = 0.6  # of the pairs that compare two summaries of the supervised policy


@dataclass(frozen=True, eq=False)
class Preferences:
    """Comparisons, one a row.

    Attributes:
        texts: what was summarised.
        candidates: two summaries of each.
        preferred: int64 ``(N,)``: 0 or 1.
        differences: float64 ``(N,)``: quality of the first less that of the second, NaN where people judged.
        kinds: who wrote the two.
    """

    texts: list[str]
    candidates: list[tuple[str, str]]
    preferred: Int64
    differences: np.ndarray[tuple[int], np.dtype[np.float64]]
    kinds: list[tuple[str, str]]

    def __len__(self) -> int:
        return len(self.texts)

    def select(self, chosen: Int64) -> Preferences:
        """The comparisons at these positions."""
        return Preferences(
            [self.texts[i] for i in chosen], [self.candidates[i] for i in chosen], self.preferred[chosen],
            self.differences[chosen], [self.kinds[i] for i in chosen],
        )  # fmt: skip

    def joined(self, other: Preferences) -> Preferences:
        """Both together."""
        return Preferences(
            self.texts + other.texts,
            self.candidates + other.candidates,
            np.concatenate([self.preferred, other.preferred]),
            np.concatenate([self.differences, other.differences]),
            self.kinds + other.kinds,
        )


def stored_preferences(comparisons: Sequence[Comparison]) -> Preferences:
    """What people stored, without what compares a summary to itself or is empty."""
    used = [
        item
        for item in comparisons
        if clean(item.input) and all(map(clean, item.candidates)) and item.candidates[0] != item.candidates[1]
    ]
    return Preferences(
        [item.input for item in used],
        [item.candidates for item in used],
        np.array([item.preferred for item in used], dtype=np.int64),
        np.full(len(used), np.nan),
        [("human", "human")] * len(used),
    )


def lead(text: str, count: int = LEAD_WORDS) -> str:
    """The first words of a text."""
    return " ".join(text.split()[:count])


def simulate(
    bundle: Bundle, pairs: Sequence[tuple[str, str]], *, count: int, seed: int, tau: float | None = None
) -> tuple[Preferences, float]:
    """``count`` comparisons labelled by the simulated labeller, and its temperature ``tau``.

    There are two a text, or more where there are too few texts for that; of a text no two compare the same summaries.
    60% compare two summaries of the supervised policy (two at temperature .7, two at 1, the greedy one); the others
    take in the lead sentence and the reference too.
    """
    generator = np.random.default_rng(seed)
    each = max(2, -(-count // len(pairs)))
    chosen = generator.permutation(len(pairs))[: -(-count // each)]
    used = [pairs[i] for i in chosen]
    written = _candidates(bundle, used, seed)
    texts: list[str] = []
    candidates: list[tuple[str, str]] = []
    kinds: list[tuple[str, str]] = []
    differences: list[float] = []
    for (text, reference), summaries in zip(used, written, strict=True):
        quality: dict[str, float] = {}
        seen: set[frozenset[str]] = set()
        for _ in range(min(each, count - len(texts))):
            pool = SFT_KINDS if generator.random() < _SFT_SHARE else KINDS
            first, second = (str(kind) for kind in generator.choice(pool, 2, replace=False))
            a, b = summaries[first], summaries[second]
            if not a or not b or a == b or frozenset((a, b)) in seen:
                continue
            seen.add(frozenset((a, b)))
            for summary in (a, b):
                if summary not in quality:
                    quality[summary] = gold(text, summary, reference)
            texts.append(text)
            candidates.append((a, b))
            kinds.append((first, second))
            differences.append(quality[a] - quality[b])
    found = np.array(differences)
    tau = temperature_for(found) if tau is None else tau
    return Preferences(texts, candidates, label(found, tau, generator), found, kinds), tau


def _candidates(bundle: Bundle, pairs: Sequence[tuple[str, str]], seed: int) -> list[dict[str, str]]:
    """The summaries of each text that are compared, by kind."""
    texts = [text for text, _ in pairs]
    cool = _written(bundle, texts, 2, 0.7, seed)
    warm = _written(bundle, texts, 2, 1.0, seed + 1)
    greedy = _written(bundle, texts, 1, 0.0, seed)
    return [
        dict(zip(KINDS, [*a, *b, *c, lead(text), clean(reference)], strict=True))
        for (text, reference), a, b, c in zip(pairs, cool, warm, greedy, strict=True)
    ]


def _written(bundle: Bundle, texts: Sequence[str], n: int, temperature: float, seed: int) -> list[list[str]]:
    batches = drawn_batches(
        bundle, bundle.sft, texts, n=n, temperature=temperature, seed=seed, max_tokens=_MAX_TOKENS
    )  # fmt: skip
    return [row for _, drawn in batches for row in texts_of(bundle, drawn)]


def encode_preferences(tokenizer: Tokenizer, preferences: Preferences, shape: Shape) -> tuple[Tensor, Tensor]:
    """Int64 texts ``(N, S)`` and summaries ``(N, 2, T)``, the preferred one first."""
    texts = {text: row for row, text in enumerate(dict.fromkeys(preferences.texts))}
    sources, _ = encode_sources(tokenizer, list(texts), shape)
    ordered = [
        candidates if preferred == 0 else candidates[::-1]
        for candidates, preferred in zip(preferences.candidates, preferences.preferred, strict=True)
    ]
    flat = encode_summaries(tokenizer, [summary for pair in ordered for summary in pair], shape.summary_tokens)
    return sources[[texts[text] for text in preferences.texts]], pad(flat).view(len(preferences), 2, -1)
