"""Win rates with length held fixed: the easiest way to please a labeller is to write longer, or shorter, summaries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from models.core.inputs import Float64
from models.summarize_feedback.measure import matched_win_rate, quality, win_rate
from models.summarize_feedback.rouge import words

TOLERANCES = (0, 1, 2, 3, 5)
Row = dict[str, float | int | str | None]


def length_rows(
    pairs: Sequence[tuple[str, str]], subjects: Mapping[str, Sequence[str]], base: Sequence[str]
) -> list[Row]:
    """Win rates against ``base``, one summary a text, where lengths differ by at most so many words; one row a subject.

    The last column is :func:`rate_at_equal_length`.
    """
    theirs, their_words = quality(pairs, base), _counts(base)
    rows: list[Row] = []
    for name, summaries in subjects.items():
        ours, our_words = quality(pairs, summaries), _counts(summaries)
        row: Row = {"summaries": name, "any length": win_rate(ours, theirs)}
        for tolerance in TOLERANCES:
            rate, texts = matched_win_rate(ours, theirs, our_words, their_words, tolerance)
            row |= {f"within {tolerance}": rate if texts else None, f"texts within {tolerance}": texts}
        wins = (ours > theirs) + 0.5 * (ours == theirs)
        row["at equal length"] = rate_at_equal_length(wins, np.log((our_words + 1) / (their_words + 1)))
        rows.append(row)
    return rows


def rate_at_equal_length(wins: Float64, log_ratio: Float64, steps: int = 30) -> float:
    """``sigmoid(a)`` of the logistic regression ``P(win) = sigmoid(a + b log(length / other length))``.

    Stiennon et al. 2020, appendix F, control for length so. Newton's method, with a ridge of 1e-3 that keeps separable
    data finite.

    Args:
        wins: 1, 0, or .5 for a tie, ``(N,)``.
        log_ratio: ``(N,)``.
    """
    design = np.stack([np.ones_like(log_ratio), log_ratio], axis=1)
    weights = np.zeros(2)
    for _ in range(steps):
        chance = 0.5 * (1 + np.tanh(design @ weights / 2))
        slope = design.T @ (wins - chance) - 1e-3 * weights
        curvature = (design * (chance * (1 - chance))[:, None]).T @ design + 1e-3 * np.eye(2)
        weights = weights + np.linalg.solve(curvature, slope)
    return float(0.5 * (1 + np.tanh(weights[0] / 2)))


def _counts(summaries: Sequence[str]) -> Float64:
    return np.array([len(words(summary)) for summary in summaries], dtype=np.float64)
