"""ROUGE F1 of two short texts (Lin 2004): lower-case words, no stemming, as rouge-score counts without a stemmer."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Hashable, Sequence

_WORD = re.compile(r"[a-z0-9]+")


def words(text: str) -> list[str]:
    """Lower-case runs of letters and digits."""
    return _WORD.findall(text.lower())


def f1(matches: int, first: int, second: int) -> float:
    """Harmonic mean of ``matches / first`` and ``matches / second``; 0 without matches."""
    return 2 * matches / (first + second) if matches else 0.0


def rouge_n(candidate: Sequence[str], reference: Sequence[str], n: int) -> float:
    """F1 of the n-grams that both texts have."""
    a, b = Counter(ngrams(candidate, n)), Counter(ngrams(reference, n))
    return f1((a & b).total(), a.total(), b.total())


def rouge_l(candidate: Sequence[str], reference: Sequence[str]) -> float:
    """F1 of the longest common subsequence."""
    row = [0] * (len(reference) + 1)
    for word in candidate:
        diagonal = 0
        for position, other in enumerate(reference, start=1):
            above = row[position]
            row[position] = diagonal + 1 if word == other else max(above, row[position - 1])
            diagonal = above
    return f1(row[-1], len(candidate), len(reference))


def ngrams(tokens: Sequence[str], n: int) -> list[Hashable]:
    """All runs of ``n`` words, in order."""
    return [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
