"""How far a policy may follow its reward model before what the labeller values gets worse (Stiennon et al., figure 5).

The curve's abscissa is ``d = sqrt(KL)``; Gao, Schulman & Hilton (2022) fit ``d (a - b log d)`` to it for reinforcement
learning and ``d (a - b d)`` for best-of-n.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from models.core.inputs import Float64
from models.core.run import Run
from models.summarize_feedback.bundle import Bundle
from models.summarize_feedback.candidates import drawn_batches, texts_of
from models.summarize_feedback.labeller import golds
from models.summarize_feedback.measure import interval, matched_win_rate, win_rate
from models.summarize_feedback.network import Policy
from models.summarize_feedback.ppo import tempered_log_probs, train_ppo
from models.summarize_feedback.ppo_math import kl_estimates
from models.summarize_feedback.rouge import words
from models.summarize_feedback.schema import PolicyOptions

Row = dict[str, float | int | str | None]
Pairs = Sequence[tuple[str, str]]


class Yardstick:
    """Measures policies by one sample of each of the same texts, against one of the supervised policy."""

    def __init__(self, bundle: Bundle, pairs: Pairs, options: PolicyOptions, seed: int) -> None:
        self._bundle, self._options, self._seed = bundle, options, seed
        self._texts, self._references = [text for text, _ in pairs], [reference for _, reference in pairs]
        self._base, self._base_words, _, _, _ = self._judge(bundle.sft, seed + 1)

    def measure(self, policy: Policy) -> tuple[Row, list[str]]:
        """Mean reward, quality, divergence, length and win rate, with 95% intervals of the first three; the samples."""
        quality, counted, rewards, divergence, written = self._judge(policy, self._seed)
        matched, near = matched_win_rate(quality, self._base, counted, self._base_words)
        row: Row = {
            "KL": float(divergence.mean()),
            "KL ±": interval(divergence),
            "reward": float(rewards.mean()),
            "reward ±": interval(rewards),
            "quality G": float(quality.mean()),
            "quality ±": interval(quality),
            "words": float(counted.mean()),
            "win rate": win_rate(quality, self._base),
            "win rate of equal length": matched if near else None,
        }
        return row, written

    @torch.no_grad()
    def _judge(self, policy: Policy, seed: int) -> tuple[Float64, Float64, Float64, Float64, list[str]]:
        bundle, options = self._bundle, self._options
        assert bundle.reward is not None
        written: list[str] = []
        parts: list[tuple[Tensor, Tensor]] = []
        for encoded, drawn in drawn_batches(
            bundle, policy, self._texts, n=1, temperature=options.temperature, seed=seed, max_tokens=options.max_tokens
        ):
            tokens = drawn.tokens
            ours, theirs = (
                tempered_log_probs(bundle.encoder, which, encoded, tokens[:, 0], options.temperature)
                for which in (policy, bundle.sft)
            )
            k1, _, _ = kl_estimates(ours - theirs)
            parts.append((bundle.reward(bundle.encoder, bundle.sft, encoded, tokens)[:, 0], k1.sum(dim=1)))
            written += [row[0] for row in texts_of(bundle, drawn)]
        rewards, divergence = (torch.cat(column).double().cpu().numpy() for column in zip(*parts, strict=True))
        quality = golds(self._texts, [[summary] for summary in written], self._references)[:, 0]
        counted = np.array([len(words(summary)) for summary in written], dtype=np.float64)
        return quality, counted, rewards, divergence, written


def tune_and_measure(
    bundle: Bundle, sources: Tensor, yardstick: Yardstick, options: PolicyOptions, points: int, run: Run,
    report: Callable[[float, str], None],
) -> tuple[Policy, list[Row], list[str]]:  # fmt: skip
    """Run PPO and measure the policy at ``points`` evenly spaced iterations, the last one among them.

    Returns:
        The policy, one row a measurement, and the summaries that the last one judged.

    Raises:
        Cancelled: the user asked for it.
        FloatingPointError: training went wrong.
    """
    assert bundle.reward is not None
    at = {round(options.iterations * (i + 1) / points) for i in range(points)} | {0}
    rows: list[Row] = []
    written: list[str] = []

    def visit(iteration: int, policy: Policy) -> None:
        nonlocal written
        if iteration in at:
            row, written = yardstick.measure(policy)
            rows.append({"beta": options.beta, "iteration": iteration, **row})

    policy, _ = train_ppo(bundle.encoder, bundle.sft, bundle.reward, sources, options, run, report, visit)
    return policy, rows, written


def fit_curve(divergence: Float64, gain: Float64, logarithmic: bool) -> tuple[float, float]:
    """Least squares ``a``, ``b`` of ``d (a - b log d)`` or ``d (a - b d)`` with ``d = sqrt(KL)``.

    Raises:
        ValueError: fewer than two points have a positive divergence.
    """
    used = divergence > 1e-6
    if used.sum() < 2:
        raise ValueError("two points of positive divergence are needed")
    d = np.sqrt(divergence[used])
    design = np.stack([d, -d * (np.log(d) if logarithmic else d)], axis=1)
    a, b = np.linalg.lstsq(design, gain[used], rcond=None)[0]
    return float(a), float(b)


def verdict(rows: Sequence[Row]) -> str:
    """Whether quality fell from its peak along one run by more than two standard errors while reward was highest."""
    quality = np.array([float(str(row["quality G"])) for row in rows])
    errors = np.array([float(str(row["quality ±"])) for row in rows]) / 1.96
    peak, reward = int(quality.argmax()), np.array([float(str(row["reward"])) for row in rows])
    fall = quality[peak] - quality[-1]
    fell = fall > 2 * float(np.hypot(errors[peak], errors[-1]))
    highest = int(reward.argmax()) == len(rows) - 1
    return (
        f"beta {rows[0]['beta']}: quality peaks at iteration {rows[peak]['iteration']} and ends {fall:.3f} below it, "
        f"{'more' if fell else 'less'} than two standard errors; "
        f"reward is {'' if highest else 'not '}highest at the end."
    )


def best_of_n_verdict(rows: Sequence[Row]) -> str:
    """Whether quality fell from the best n by more than two standard errors of the paired difference."""
    best = max(rows, key=lambda row: float(str(row["quality G"])))
    fall, error = (float(str(rows[-1][name])) for name in ("fall from the best n", "fall ±"))
    fell = rows[-1] is not best and fall > 2 * error / 1.96
    return (
        f"Best of n: quality peaks at n = {best['n']} and is {fall:.4f} ± {error:.4f} below that at n = "
        f"{rows[-1]['n']}, {'more' if fell else 'less'} than two standard errors."
    )
