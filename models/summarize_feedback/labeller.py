"""A simulated labeller: a program that reads the hidden reference and prefers what agrees with it.

It stands in for people, and everything trained on it says so (``preference_source: simulated``).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from models.core.inputs import Float64
from models.summarize_feedback.rouge import ngrams, rouge_l, rouge_n, words

AGREEMENT = 0.77  # labeller and researcher agree so often in the paper
_LONG_CHARACTERS = 80
_FUNCTION_WORDS = frozenset(
    """
    a an and are as at be by can for from has have in into is it its of on or that the their this to use used using
    via was which will with your you not other such these those than then over under more most any all
    """.split()  # noqa: SIM905 - a list of so many short strings is hard to read
)


def gold(text: str, summary: str, reference: str) -> float:
    """Quality of a summary: agreement with the reference, less what is invented, repeated or against the style.

    ``.5 ROUGE-1 + .5 ROUGE-L - .3 (share of content words neither in the text nor in the reference)
    - .2 (share of repeated bigrams) - .1 [starts with an article, ends with a full stop, or > 80 characters]``.
    """
    found, wanted = words(summary), words(reference)
    content = [word for word in found if word not in _FUNCTION_WORDS]
    known = set(words(text)) | set(wanted)
    invented = sum(word not in known for word in content) / len(content) if content else 0.0
    bigrams = ngrams(found, 2)
    repeated = 1 - len(set(bigrams)) / len(bigrams) if bigrams else 0.0
    stripped = summary.strip()
    odd = bool(found[:1] and found[0] in ("a", "an", "the")) or stripped.endswith(".")
    odd = odd or len(stripped) > _LONG_CHARACTERS
    agreement = 0.5 * rouge_n(found, wanted, 1) + 0.5 * rouge_l(found, wanted)
    return agreement - 0.3 * invented - 0.2 * repeated - 0.1 * odd


def golds(texts: Sequence[str], summaries: Sequence[Sequence[str]], references: Sequence[str]) -> Float64:
    """:func:`gold` of ``n`` summaries of each text: float64 ``(B, n)``."""
    return np.array(
        [
            [gold(text, summary, reference) for summary in row]
            for text, row, reference in zip(texts, summaries, references, strict=True)
        ]
    )


def temperature_for(differences: Float64, agreement: float = AGREEMENT) -> float:
    """``tau`` with which the expected agreement of a label with the sign of its difference is ``agreement``.

    Solves ``mean sigmoid(|d| / tau) = agreement`` by bisection; pairs without a difference do not count.
    """
    sizes = np.abs(differences[differences != 0])
    low, high = 1e-4, 1e3
    for _ in range(60):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if _sigmoid(sizes / middle).mean() > agreement else (low, middle)
    return float((low * high) ** 0.5)


def label(differences: Float64, tau: float, generator: np.random.Generator) -> npt.NDArray[np.int64]:
    """Which of two is preferred, 0 or 1, from ``G_0 - G_1``: 0 with probability ``sigmoid(d / tau)``."""
    return (generator.random(len(differences)) >= _sigmoid(differences / tau)).astype(np.int64)


def _sigmoid(x: Float64) -> Float64:
    return np.asarray(0.5 * (1 + np.tanh(x / 2)))
