"""Stage 2: a reward model from comparisons (Stiennon et al. 2020, section 3.4)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional as F

from models.core.run import Run
from models.summarize_feedback.examples import encode_pairs, length_batches, trim
from models.summarize_feedback.network import Encoder, Policy, Shape
from models.summarize_feedback.schema import RewardOptions
from models.summarize_feedback.scorer import Scorer, mean_log_probs
from models.summarize_feedback.tokenizer import PAD

Report = Callable[[float, str], None]


def comparison_loss(preferred: Tensor, other: Tensor) -> Tensor:
    """``-log sigmoid(r_w - r_l)``, averaged."""
    return -F.logsigmoid(preferred - other).mean()


def scorer_from(policy: Policy, shape: Shape, seed: int) -> Scorer:
    """The policy's decoder with a new scalar head."""
    torch.manual_seed(seed)
    scorer = Scorer(shape)
    scorer.decoder.load_state_dict(policy.decoder.state_dict())
    return scorer.eval()


def train_reward(
    encoder: Encoder, policy: Policy, shape: Shape, sources: Tensor, summaries: Tensor, options: RewardOptions,
    run: Run, report: Report,
) -> Scorer:  # fmt: skip
    """Train a scorer on comparisons; the encoder stays as it is, so that policy and reward share it.

    Args:
        sources: int64 ``(N, S)``.
        summaries: int64 ``(N, 2, T)``, the preferred one first.

    Raises:
        Cancelled: the user asked for it.
    """
    encoder.requires_grad_(False)
    scorer = scorer_from(policy, shape, run.seed)
    optimizer = torch.optim.AdamW(scorer.parameters(), lr=options.learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    generator = np.random.default_rng(run.seed)
    counted = (sources != PAD).sum(dim=1).numpy()
    size = min(options.batch_size, len(sources))
    likelihoods = _likelihoods(encoder, policy, sources, summaries)
    batches = [torch.from_numpy(b) for _ in range(options.epochs) for b in length_batches(counted, size, generator)]
    for step, index in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = options.learning_rate * min(1.0, (step + 1) / 20) * max(0.05, 1 - step / len(batches))
        with torch.no_grad():
            encoded = encoder(trim(sources[index]))
        longest = int((summaries[index] != PAD).sum(dim=2).max())
        rewards = scorer.judge(encoder, encoded, summaries[index, :, :longest], likelihoods[index])
        loss = comparison_loss(rewards[:, 0], rewards[:, 1])
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(scorer.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % 5 == 0 or step + 1 == len(batches):
            report((step + 1) / len(batches), f"step {step + 1} of {len(batches)}")
            run.metric("reward_loss", float(loss.detach()), step + 1)
    return scorer


@torch.no_grad()
def rewards_of(encoder: Encoder, policy: Policy, scorer: Scorer, sources: Tensor, summaries: Tensor) -> Tensor:
    """Rewards ``(N, n)`` of summaries ``(N, n, T)``; ``policy`` is the supervised one."""
    parts = _parts(len(sources))
    return torch.cat([scorer(encoder, policy, encoder(trim(sources[part])), summaries[part]) for part in parts])


@torch.no_grad()
def _likelihoods(encoder: Encoder, policy: Policy, sources: Tensor, summaries: Tensor) -> Tensor:
    parts = _parts(len(sources))
    return torch.cat([mean_log_probs(encoder, policy, encoder(trim(sources[part])), summaries[part]) for part in parts])


def _parts(count: int, size: int = 256) -> list[slice]:
    return [slice(start, start + size) for start in range(0, count, size)]


def calibrate(
    tokenizer: Tokenizer,
    encoder: Encoder,
    policy: Policy,
    scorer: Scorer,
    shape: Shape,
    pairs: Sequence[tuple[str, str]],
) -> None:
    """Shift the rewards so that those of reference summaries average to 0."""
    examples = encode_pairs(tokenizer, pairs, shape)
    scorer.shift += rewards_of(encoder, policy, scorer, examples.sources, examples.summaries[:, None]).mean()
