"""Measuring policies on texts with references: ROUGE, the simulated labeller's quality, win rates, lengths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from models.core.inputs import Float64
from models.summarize_feedback.bundle import Bundle
from models.summarize_feedback.candidates import drawn_batches, sequence_log_probs, texts_of
from models.summarize_feedback.labeller import golds
from models.summarize_feedback.network import Policy, lengths
from models.summarize_feedback.rouge import rouge_l, rouge_n, words

MAX_TOKENS = 24


@dataclass(frozen=True, eq=False)
class Samples:
    """``n`` summaries of each of B texts; numbers float64 ``(B, n)``, NaN where a version has no reward model."""

    texts: list[list[str]]
    rewards: Float64
    log_probs: Float64
    log_ratio: Float64
    tokens: Float64
    ended: Float64


@torch.no_grad()
def sample(bundle: Bundle, policy: Policy, texts: Sequence[str], *, n: int, temperature: float, seed: int) -> Samples:
    """Draw and score; ``log_ratio`` is ``log policy - log sft`` at temperature 1."""
    found: list[list[torch.Tensor]] = []
    written: list[list[str]] = []
    for encoded, drawn in drawn_batches(
        bundle, policy, texts, n=n, temperature=temperature, seed=seed, max_tokens=MAX_TOKENS
    ):
        rewards = torch.full_like(drawn.log_probs, torch.nan)
        if bundle.reward is not None:
            rewards = bundle.reward(bundle.encoder, bundle.sft, encoded, drawn.tokens)
        before = drawn.log_probs
        if policy is not bundle.sft:
            before = sequence_log_probs(bundle, bundle.sft, encoded, drawn.tokens)
        found.append([rewards, drawn.log_probs, drawn.log_probs - before, lengths(drawn.tokens), drawn.ended])
        written += texts_of(bundle, drawn)
    columns = [torch.cat(parts).double().cpu().numpy() for parts in zip(*found, strict=True)]
    return Samples(written, *columns)


def rouges(summaries: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """Mean ROUGE-1, -2 and -L F1."""
    rows = []
    for summary, reference in zip(summaries, references, strict=True):
        a, b = words(summary), words(reference)
        rows.append((rouge_n(a, b, 1), rouge_n(a, b, 2), rouge_l(a, b)))
    means = np.mean(rows, axis=0)
    return {"ROUGE-1": float(means[0]), "ROUGE-2": float(means[1]), "ROUGE-L": float(means[2])}


def quality(pairs: Sequence[tuple[str, str]], summaries: Sequence[str]) -> Float64:
    """The simulated labeller's quality of one summary a text: ``(B,)``."""
    texts, references = zip(*pairs, strict=True)
    return golds(texts, [[summary] for summary in summaries], references)[:, 0]


def win_rate(ours: Float64, theirs: Float64) -> float:
    """Share of texts on which ours is better; ties count half."""
    return float(((ours > theirs) + 0.5 * (ours == theirs)).mean())


def matched_win_rate(
    ours: Float64, theirs: Float64, our_words: Float64, their_words: Float64, tolerance: int = 1
) -> tuple[float, int]:
    """Win rate on the texts where both summaries have as many words, ``tolerance`` more or less; how many they are."""
    near = np.abs(our_words - their_words) <= tolerance
    return (win_rate(ours[near], theirs[near]) if near.any() else float("nan")), int(near.sum())


def interval(values: Float64) -> float:
    """Half width of the 95% interval of a mean."""
    return float(1.96 * np.std(values, ddof=1) / len(values) ** 0.5) if len(values) > 1 else float("nan")


def best(samples: Samples, n: int, by: Float64) -> list[str]:
    """Of the first n summaries of each text, the one that ranks highest by ``by`` ``(B, N)``."""
    return [row[int(np.argmax(score[:n]))] for row, score in zip(samples.texts, by, strict=True)]
