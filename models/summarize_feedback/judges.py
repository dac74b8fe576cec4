"""How often the reward model, and rules that need none, agree with the simulated labeller."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from models.core.figures import Figure
from models.core.inputs import Float64
from models.summarize_feedback.bundle import Bundle
from models.summarize_feedback.candidates import sequence_log_probs
from models.summarize_feedback.comparisons import SFT_KINDS, Preferences, encode_preferences, lead, simulate
from models.summarize_feedback.examples import encode_sources
from models.summarize_feedback.network import lengths
from models.summarize_feedback.reward import rewards_of
from models.summarize_feedback.rouge import words

Row = dict[str, float | int | str | None]
Pairs = Sequence[tuple[str, str]]


def noiseless(bundle: Bundle, pairs: Pairs, count: int, seed: int) -> Preferences:
    """Comparisons in which the labeller always prefers what it holds better."""
    made, _ = simulate(bundle, pairs, count=count, seed=seed, tau=1e-6)
    return made.select(np.flatnonzero(made.differences != 0))


def agreement_rows(bundle: Bundle, made: Preferences) -> list[Row]:
    """Agreement of each judge, one row each, the reward model's first; a tie counts half."""
    margins = preference_margins(bundle, made)
    sft = np.array([a in SFT_KINDS and b in SFT_KINDS for a, b in made.kinds])
    against = np.array(["reference" in kinds and "lead" not in kinds for kinds in made.kinds])
    return [
        {
            "judge": judge,
            "sft against sft": _agreement(margin[sft]),
            "all pairs": _agreement(margin),
            "reference against sft": _agreement(margin[against]),
            "comparisons": len(made),
            "sft against sft, comparisons": int(sft.sum()),
        }
        for judge, margin in margins.items()
    ]


def reward_figures(bundle: Bundle, pairs: Pairs, count: int, seed: int) -> tuple[list[Figure], list[Row]]:
    """Agreement of the reward model and of simple rules with the labeller without its noise."""
    rows = agreement_rows(bundle, noiseless(bundle, pairs, count, seed))
    used = rows[0]["sft against sft, comparisons"]
    figures = [
        Figure(
            name="agreement with the labeller", value=float(str(row["sft against sft"])),
            setting=f"{used} pairs of two supervised summaries, simulated labeller without noise",
            subject="method" if row["judge"] == "reward model" else str(row["judge"]),
            headline=row["judge"] == "reward model",
        )
        for row in rows
    ]  # fmt: skip
    return figures, rows


def _agreement(margin: Float64) -> float | None:
    return float(((margin > 0) + 0.5 * (margin == 0)).mean()) if len(margin) else None


@torch.no_grad()
def preference_margins(bundle: Bundle, made: Preferences) -> dict[str, Float64]:
    """By how much each judge prefers what was preferred, float64 ``(N,)``."""
    assert bundle.reward is not None
    sources, summaries = encode_preferences(bundle.tokenizer, made, bundle.shape)
    rewards = rewards_of(bundle.encoder, bundle.sft, bundle.reward, sources, summaries).double().numpy()
    parts = []
    for start in range(0, len(made), 256):
        part = slice(start, start + 256)
        encoded = bundle.encoder(encode_sources(bundle.tokenizer, made.texts[part], bundle.shape)[0].to(bundle.device))
        found = sequence_log_probs(bundle, bundle.sft, encoded, summaries[part].to(bundle.device))
        parts.append(found.double().cpu().numpy())
    likely = np.concatenate(parts)
    ordered = [c if p == 0 else c[::-1] for c, p in zip(made.candidates, made.preferred, strict=True)]
    counted = np.array([[len(words(summary)) for summary in pair] for pair in ordered], dtype=np.float64)
    overlap = np.array(
        [
            [len(set(words(summary)) & set(words(lead(text)))) / max(1, len(set(words(summary)))) for summary in pair]
            for pair, text in zip(ordered, made.texts, strict=True)
        ]
    )
    judged = {
        "reward model": rewards,
        "log-probability": likely,
        "log-probability per token": likely / lengths(summaries).numpy(),
        "longer": counted,
        "overlap with the lead": overlap,
    }
    return {name: values[:, 0] - values[:, 1] for name, values in judged.items()} | {
        "shorter": counted[:, 1] - counted[:, 0]
    }
