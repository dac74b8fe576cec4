"""What ``evaluate`` measures: summaries against the lead and the supervised policy, the reward model, best-of-n."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
import torch

from models.core.checkpoint import Checkpoint
from models.core.dataset import Dataset
from models.core.figures import Figure, Figures
from models.core.inputs import Float64
from models.core.run import Run
from models.core.sources import load
from models.summarize_feedback.best_of_n import expected_best, kl_bound
from models.summarize_feedback.bundle import WEIGHTS, Bundle, read_bundle
from models.summarize_feedback.comparisons import lead
from models.summarize_feedback.examples import encode_pairs, pairs_of
from models.summarize_feedback.findings import training_findings
from models.summarize_feedback.judges import reward_figures
from models.summarize_feedback.labeller import golds
from models.summarize_feedback.length_control import length_rows
from models.summarize_feedback.long_texts import long_text_rows
from models.summarize_feedback.measure import (
    Samples,
    best,
    interval,
    matched_win_rate,
    quality,
    rouges,
    sample,
    win_rate,
)  # fmt: skip
from models.summarize_feedback.rouge import words
from models.summarize_feedback.sft import perplexity

TEXTS, SAMPLES, COMPARISONS, TEMPERATURE = 400, 32, 2000, 0.7  # of one evaluation on a CPU
PERPLEXITY_PAIRS = 1500
SIZES = (1, 2, 4, 8, 16, 32, 64)
Row = dict[str, float | int | str | None]
Pairs = Sequence[tuple[str, str]]


def evaluate_method(
    checkpoint: Checkpoint, run: Run, dataset: Dataset | None, *, texts: int = TEXTS, samples: int = SAMPLES,
    comparisons: int = COMPARISONS, trainings: Mapping[str, list[Row]] = MappingProxyType({}),
) -> Figures:  # fmt: skip
    """Measure the checkpoint on the test split of the package descriptions, or on ``dataset``.

    What takes a training is the stored one, for the package descriptions: `python -m models.summarize_feedback.ship`
    makes it.

    Args:
        texts: pairs that are summarised, of all in a fixed order.
        samples: drawn of each for the best of n.
        comparisons: simulated ones that the reward model is measured on.
        trainings: tables of trainings, instead of those that are stored.

    Raises:
        MethodError: the data set holds no pairs.
        DataUnavailableError: the package descriptions cannot be had.
        Cancelled: the user asked for it.
    """
    started = time.monotonic()
    data = load("package-descriptions", "test") if dataset is None else dataset
    everything = pairs_of(data)
    order = np.random.default_rng(0).permutation(len(everything))
    pairs = [everything[i] for i in order[:texts]]
    bundle = read_bundle(checkpoint).to(torch.device(run.device))
    run.progress(0.05, "summaries", f"{len(pairs)} texts")
    setting = f"{len(pairs)} pairs of {data.name or 'the data set'}"
    figures, tables, claims = summary_figures(bundle, pairs, run.seed, setting, samples)
    if bundle.reward is not None:
        run.progress(0.6, "reward model")
        count = min(comparisons, 2 * len(everything))
        more, table = reward_figures(bundle, everything, count, run.seed)
        figures, tables = figures + more, tables | {"reward model": table}
        run.progress(0.8, "long texts")
        tables["long texts"] = long_text_rows(bundle, pairs, run.seed)
    if dataset is None:
        run.progress(0.9, "perplexity")
        splits = {split: pairs_of(load("package-descriptions", split)) for split in ("train", "validation", "test")}
        stored = Checkpoint(WEIGHTS).figures
        tables["perplexity by split"] = perplexity_rows(bundle, splits)
        tables = ({} if stored is None else stored.tables) | tables | dict(trainings)
        more, said = training_findings(tables)
        figures, claims = figures + more, claims + said
    return Figures(
        figures=figures,
        claims=[f"preference_source: {bundle.preference_source}.", *claims],
        tables=tables,
        data_sha256={data.name or "data": data.sha256},
        command="deepnight evaluate summarize-feedback",
        seconds=time.monotonic() - started,
    )


def perplexity_rows(bundle: Bundle, splits: Mapping[str, Pairs]) -> list[Row]:
    """Perplexity of the supervised policy for a reference token on as many pairs of each split, in a fixed order.

    No source package has texts in two splits: of ``train`` it learned nearly all texts, of the others no package.
    """
    rows: list[Row] = []
    for split, pairs in splits.items():
        chosen = [pairs[i] for i in np.random.default_rng(0).permutation(len(pairs))[:PERPLEXITY_PAIRS]]
        found = perplexity(bundle.encoder, bundle.sft, encode_pairs(bundle.tokenizer, chosen, bundle.shape))
        rows.append({"split": split, "pairs": len(chosen), "perplexity": found})
    return rows


def first_sentence(text: str) -> str:
    """The text up to its first full stop that ends a sentence, without the stop."""
    return re.split(r"(?<=[.!?])\s", text.strip(), maxsplit=1)[0].rstrip(".")


def summary_figures(
    bundle: Bundle, pairs: Pairs, seed: int, setting: str, samples: int
) -> tuple[list[Figure], dict[str, list[Row]], list[str]]:
    """ROUGE, quality, length and win rate of every way to summarise; the best-of-n curve."""
    texts = [text for text, _ in pairs]
    many = sample(bundle, bundle.sft, texts, n=samples, temperature=TEMPERATURE, seed=seed)
    greedy = sample(bundle, bundle.sft, texts, n=1, temperature=0, seed=seed)
    plain = [row[0] for row in many.texts]
    subjects = {
        "lead, 15 words": [lead(text) for text in texts],
        "copy of the first sentence": [first_sentence(text) for text in texts],
        "sft, greedy": [row[0] for row in greedy.texts],
        "sft, one sample": plain,
        "sft, best of 16 by log-probability": best(many, 16, many.log_probs),
        "sft, best of 16 by length": best(many, 16, many.tokens),
    }
    tuned = None
    if bundle.reward is not None:
        subjects["sft, best of 4"] = best(many, 4, many.rewards)
        subjects["sft, best of 16"] = best(many, 16, many.rewards)
    if bundle.ppo is not None:
        tuned = sample(bundle, bundle.ppo, texts, n=16, temperature=TEMPERATURE, seed=seed + 1)
        subjects["ppo, one sample"] = [row[0] for row in tuned.texts]
        subjects["ppo, best of 16"] = best(tuned, 16, tuned.rewards)
    rows = summary_rows(pairs, subjects, plain)
    compared = {name: written for name, written in subjects.items() if written is not plain}
    tables: dict[str, list[Row]] = {"summaries": rows, "length control": length_rows(pairs, compared, plain)}
    if bundle.reward is not None:
        tables["best of n"] = best_of_n_rows(pairs, many)
    figures = [
        Figure(name=name, value=float(str(row[name])), subject=_subject(str(row["summaries"])), setting=setting)
        for row in rows
        for name in ("ROUGE-1", "ROUGE-L", "quality G")
    ]
    figures[0:0] = _headline(rows, setting)
    found = perplexity(bundle.encoder, bundle.sft, encode_pairs(bundle.tokenizer, pairs, bundle.shape))
    figures.append(Figure(name="perplexity of a reference token", value=found, subject="sft", setting=setting))
    return figures, tables, _claims(rows, tables.get("best of n", []), tuned)


def _subject(name: str) -> str:
    return "method" if name == "ppo, best of 16" else name


def _headline(rows: Sequence[Row], setting: str) -> list[Figure]:
    last = rows[-1]
    value = last["win rate against sft, one sample"]
    if value is None or last["summaries"] == "sft, best of 16 by length":
        return []
    name = "win rate by simulated labeller against one supervised sample"
    return [Figure(name=name, value=float(value), setting=f"{last['summaries']}; {setting}", headline=True)]


def summary_rows(pairs: Pairs, subjects: dict[str, list[str]], plain: list[str]) -> list[Row]:
    """One row a way to summarise."""
    base, base_words = quality(pairs, plain), _word_counts(plain)
    rows: list[Row] = []
    for name, summaries in subjects.items():
        found, counted = quality(pairs, summaries), _word_counts(summaries)
        matched, near = matched_win_rate(found, base, counted, base_words)
        rows.append(
            {
                "summaries": name,
                **rouges(summaries, [reference for _, reference in pairs]),
                "quality G": float(found.mean()),
                "±": interval(found),
                "words": float(counted.mean()),
                "win rate against sft, one sample": None if summaries is plain else win_rate(found, base),
                "of equal length": None if summaries is plain or not near else matched,
                "texts of equal length": near,
            }
        )
    return rows


def _word_counts(summaries: Sequence[str]) -> Float64:
    return np.array([len(words(summary)) for summary in summaries], dtype=np.float64)


def best_of_n_rows(pairs: Pairs, many: Samples) -> list[Row]:
    """Expected reward and quality of the best of n by reward, from all samples of each text, with 95% intervals.

    Gains over one and falls from the best n are of the same texts, so their intervals are those of paired differences.
    """
    texts, references = zip(*pairs, strict=True)
    found = golds(texts, many.texts, references)
    sizes = [n for n in SIZES if n <= many.rewards.shape[1]]
    values = [expected_best(many.rewards, found, n) for n in sizes]
    peak = max(values, key=np.mean)
    rows: list[Row] = []
    for n, value in zip(sizes, values, strict=True):
        reward, gain, fall = expected_best(many.rewards, many.rewards, n), value - found.mean(axis=1), peak - value
        rows.append(
            {
                "n": n,
                "KL bound": kl_bound(n),
                "reward": float(reward.mean()),
                "reward ±": interval(reward),
                "quality G": float(value.mean()),
                "quality ±": interval(value),
                "gain over one": float(gain.mean()),
                "gain ±": interval(gain),
                "fall from the best n": float(fall.mean()),
                "fall ±": interval(fall),
            }
        )
    return rows


def _claims(rows: Sequence[Row], curve: Sequence[Row], tuned: Samples | None) -> list[str]:
    by_name = {str(row["summaries"]): row for row in rows}
    first, greedy = by_name["lead, 15 words"]["ROUGE-1"], by_name["sft, greedy"]["ROUGE-1"]
    gain = float(str(greedy)) - float(str(first))
    goal = "reaches" if gain >= 0.05 else "misses"
    claims = [f"ROUGE-1 of greedy supervised summaries less that of the first 15 words: {gain:+.3f}; {goal} +.05."]
    if curve:
        row = next(row for row in reversed(curve) if int(str(row["n"])) <= 16)
        low = float(str(row["gain over one"])) - float(str(row["gain ±"]))
        word = "is" if low > 0 else "is not"
        claims.append(f"Quality of the best of {row['n']} {word} above one sample's beyond its 95% interval.")
    if tuned is not None:
        win, kl = by_name["ppo, one sample"]["win rate against sft, one sample"], tuned.log_ratio.mean()
        goal = "reaches" if float(str(win)) >= 0.6 else "misses"
        claims.append(f"One sample after PPO wins {float(str(win)):.0%} against one before ({goal} 60%), KL {kl:.2f}.")
        ours, four = by_name["ppo, one sample"]["quality G"], by_name["sft, best of 4"]["quality G"]
        word = "at least" if float(str(ours)) >= float(str(four)) else "below"
        claims.append(f"Mean quality of one sample after PPO is {word} that of the supervised best of 4.")
    return claims
