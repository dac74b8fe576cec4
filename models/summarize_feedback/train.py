"""``train``: one of the three stages, from a data set of pairs to a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from models.core.checkpoint import Checkpoint, CheckpointError
from models.core.dataset import Dataset
from models.core.figures import Figure, Figures
from models.core.jobs import JobContext
from models.core.method import MethodError
from models.core.run import Run
from models.summarize_feedback.bundle import SLUG, WEIGHTS, Bundle, Source, read_bundle, write_bundle
from models.summarize_feedback.comparisons import (
    Preferences,
    encode_preferences,
    simulate,
    stored_preferences,
)  # fmt: skip
from models.summarize_feedback.examples import encode_pairs, encode_sources, left_for_feedback, pairs_of
from models.summarize_feedback.network import Shape
from models.summarize_feedback.ppo import train_ppo
from models.summarize_feedback.reward import calibrate, rewards_of, train_reward
from models.summarize_feedback.schema import Config, RewardOptions
from models.summarize_feedback.sft import perplexity, train_supervised
from models.summarize_feedback.tokenizer import clean, train_tokenizer

_HELD_OUT, _MEASURED = 0.05, 3000  # least share of the texts that measures the supervised policy; most texts
Pairs = list[tuple[str, str]]


def train_stage(dataset: Dataset, config: Config, run: Run) -> Checkpoint:
    """Train the stage that ``config`` names.

    Raises:
        MethodError: the data set, the configuration or its base does not fit; names it.
        Cancelled: the user asked for it.
        FloatingPointError: training diverged.
    """
    pairs = pairs_of(dataset)
    if len(pairs) < 2:
        raise MethodError("dataset: at least two pairs are needed")
    stages = {"sft": _supervised, "reward": _reward, "ppo": _policy}
    bundle, figures = stages[config.stage](pairs, config, run)
    return write_bundle(
        run.scratch / "checkpoint",
        bundle,
        config,
        data_sha256=dataset.sha256,
        seed=run.seed,
        figures=Figures(figures=figures, data_sha256={dataset.name or "data": dataset.sha256}),
    )


def _supervised(pairs: Pairs, config: Config, run: Run) -> tuple[Bundle, list[Figure]]:
    run.progress(0.0, "tokenizer", f"{len(pairs)} pairs")
    apart = left_for_feedback([text for text, _ in pairs], max(config.feedback_share, _HELD_OUT))
    kept = [pair for pair, held in zip(pairs, apart, strict=True) if not held]
    held = [pair for pair, held in zip(pairs, apart, strict=True) if held][:_MEASURED]
    sizes = config.sizes
    tokenizer = train_tokenizer((text for pair in kept for text in pair), sizes.vocabulary)
    shape = Shape(
        tokenizer.get_vocab_size(), sizes.width, sizes.heads, sizes.encoder_layers, sizes.decoder_layers,
        sizes.source_tokens,
    )  # fmt: skip
    examples = encode_pairs(tokenizer, kept, shape)
    run.log(
        f"{examples.longer} of {len(kept)} texts are longer than {shape.source_tokens} tokens; "
        "their beginning and end are read"
    )
    encoder, policy = train_supervised(
        examples, shape, config.sft, run, lambda fraction, text: run.progress(0.02 + 0.96 * fraction, "sft", text)
    )
    found = perplexity(encoder, policy, encode_pairs(tokenizer, held, shape))
    figure = Figure(name="perplexity of a reference token", value=found, setting=f"{len(held)} held-out pairs")
    return Bundle(shape, tokenizer, encoder, policy), [figure]


def _reward(pairs: Pairs, config: Config, run: Run) -> tuple[Bundle, list[Figure]]:
    bundle, options = base_bundle(config, run), config.reward
    pairs = feedback_pairs(pairs, config)
    run.progress(0.0, "comparisons")
    learnt, source = gather_preferences(bundle, pairs, options, run)
    train, test = split_by_text(learnt, options.validation_share, run.seed)
    sources, summaries = encode_preferences(bundle.tokenizer, train, bundle.shape)
    scorer = train_reward(
        bundle.encoder, bundle.sft, bundle.shape, sources, summaries, options, run,
        lambda fraction, text: run.progress(0.5 + 0.45 * fraction, "reward", text),
    )  # fmt: skip
    calibrate(bundle.tokenizer, bundle.encoder, bundle.sft, scorer, bundle.shape, pairs[:2000])
    bundle.reward, bundle.ppo, bundle.preference_source = scorer, None, source
    agreement = agreement_with_labels(bundle, test)
    setting = f"{len(test)} held-out comparisons, {source}"
    return bundle, [Figure(name="agreement with the label", value=agreement, setting=setting)]


def _policy(pairs: Pairs, config: Config, run: Run) -> tuple[Bundle, list[Figure]]:
    bundle = base_bundle(config, run)
    if bundle.reward is None:
        raise MethodError("base: it has no reward model; run the stage `reward` first")
    texts = [text for text, _ in feedback_pairs(pairs, config)]
    sources, _ = encode_sources(bundle.tokenizer, texts, bundle.shape)
    bundle.ppo, history = train_ppo(
        bundle.encoder, bundle.sft, bundle.reward, sources, config.ppo, run,
        lambda fraction, text: run.progress(0.02 + 0.96 * fraction, "ppo", text),
    )  # fmt: skip
    last = history[-10:]
    return bundle, [
        Figure(
            name=f"{name} of the last rollouts", value=float(np.mean([facts[name] for facts in last])),
            setting=f"{len(last)} rollouts of training texts",
        )
        for name in ("reward", "kl", "tokens")
        if last
    ]  # fmt: skip


def feedback_pairs(pairs: Pairs, config: Config) -> Pairs:
    """Those that stage sft has left to the stages that learn from feedback; all of them where it leaves none.

    Raises:
        MethodError: there are fewer than two.
    """
    if not config.feedback_share:
        return pairs
    apart = left_for_feedback([text for text, _ in pairs], config.feedback_share)
    found = [pair for pair, left in zip(pairs, apart, strict=True) if left]
    if len(found) < 2:
        raise MethodError("feedback_share: it leaves fewer than two texts for this stage")
    return found


def base_bundle(config: Config, run: Run) -> Bundle:
    """The networks that a stage starts from.

    Raises:
        MethodError: ``base`` cannot be had, or is of another method.
    """
    if config.base is None:
        return read_bundle(Checkpoint(WEIGHTS)).to(torch.device(run.device))
    if not isinstance(run, JobContext):
        raise MethodError("base: only a job can start from another version than the shipped one")
    try:
        checkpoint = run.checkpoint(config.base)
    except KeyError:
        raise MethodError(f"base: there is no version {config.base}") from None
    except CheckpointError as error:
        raise MethodError(f"base: {error}") from error
    if checkpoint.config.method != SLUG:
        raise MethodError(f"base: {config.base} is a version of {checkpoint.config.method}, not of {SLUG}")
    return read_bundle(checkpoint).to(torch.device(run.device))


def gather_preferences(
    bundle: Bundle, pairs: Sequence[tuple[str, str]], options: RewardOptions, run: Run
) -> tuple[Preferences, Source]:
    """What people stored, simulated comparisons, or both, and which of them it was.

    Raises:
        MethodError: too few people have compared summaries.
    """
    human = stored_preferences([] if options.comparisons == "simulated" else run.comparisons())
    if options.comparisons == "human" and len(human) < options.min_human:
        raise MethodError(
            f"reward/comparisons: {len(human)} comparisons of people are stored, `human` needs {options.min_human}"
        )
    if options.comparisons == "human":
        return human, "human"
    simulated, _ = simulate(bundle, pairs, count=options.simulated, seed=run.seed)
    run.log(f"{len(simulated)} simulated comparisons, {len(human)} of people")
    return (simulated.joined(human), "mixed") if len(human) else (simulated, "simulated")


def split_by_text(preferences: Preferences, share: float, seed: int) -> tuple[Preferences, Preferences]:
    """Training and held-out comparisons that share no text.

    Raises:
        MethodError: there are fewer than two texts.
    """
    texts = sorted({clean(text) for text in preferences.texts})
    if len(texts) < 2:
        raise MethodError("dataset: comparisons of at least two texts are needed")
    order = np.random.default_rng([seed, 2]).permutation(len(texts))
    held = {texts[i] for i in order[: max(1, round(share * len(texts)))]}
    apart = np.array([clean(text) in held for text in preferences.texts])
    return preferences.select(np.flatnonzero(~apart)), preferences.select(np.flatnonzero(apart))


def agreement_with_labels(bundle: Bundle, preferences: Preferences) -> float:
    """Share of comparisons in which the reward model prefers what was preferred."""
    assert bundle.reward is not None
    sources, summaries = encode_preferences(bundle.tokenizer, preferences, bundle.shape)
    rewards = rewards_of(bundle.encoder, bundle.sft, bundle.reward, sources, summaries)
    return float((rewards[:, 0] > rewards[:, 1]).float().mean())
