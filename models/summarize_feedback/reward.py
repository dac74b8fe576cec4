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
from models.summarize_feedback.scorer import Scorer, token_log_probs
from models.summarize_feedback.tokenizer import PAD

Report = Callable[[float, str], None]


def comparison_loss(preferred: Tensor, other: Tensor) -> Tensor:
    """``-log sigmoid(r_w - r_l)``, averaged."""
    return -F.logsigmoid(preferred - other).mean()


def scorer_from(encoder: Encoder, policy: Policy, shape: Shape, seed: int) -> Scorer:
    """The supervised reader and decoder with a new scalar head."""
    torch.manual_seed(seed)
    scorer = Scorer(shape)
    own = {name: tensor for name, tensor in encoder.state_dict().items() if not name.startswith("embedding.")}
    scorer.reader.load_state_dict(own)
    scorer.decoder.load_state_dict(policy.decoder.state_dict())
    return scorer.to(encoder.embedding.weight.device).eval()


def train_reward(
    encoder: Encoder, policy: Policy, shape: Shape, sources: Tensor, summaries: Tensor, options: RewardOptions,
    run: Run, report: Report,
) -> Scorer:  # fmt: skip
    """Train a scorer on comparisons; encoder and policy stay as they are.

    Args:
        sources: int64 ``(N, S)``.
        summaries: int64 ``(N, 2, T)``, the preferred one first.

    Raises:
        Cancelled: the user asked for it.
    """
    encoder.requires_grad_(False)
    scorer = scorer_from(encoder, policy, shape, run.seed)
    counted = (sources != PAD).sum(dim=1).numpy()
    written = (summaries != PAD).sum(dim=2).amax(dim=1).numpy()
    sources, summaries = sources.to(run.device), summaries.to(run.device)
    optimizer = torch.optim.AdamW(
        scorer.parameters(), lr=options.learning_rate, betas=(0.9, 0.98), weight_decay=0.01, fused=sources.is_cuda
    )
    generator = np.random.default_rng(run.seed)
    size = min(options.batch_size, len(sources))
    log_probs = _log_probs(encoder, policy, sources, summaries)
    batches = [chosen for _ in range(options.epochs) for chosen in length_batches(counted, size, generator)]
    for step, chosen in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = options.learning_rate * min(1.0, (step + 1) / 20) * max(0.05, 1 - step / len(batches))
        rows, longest = torch.from_numpy(chosen).to(run.device), int(written[chosen].max())
        read = scorer.read(encoder, sources[rows, : int(counted[chosen].max())])
        rewards = scorer.judge(encoder, read, summaries[rows, :, :longest], log_probs[rows, :, :longest])
        loss = comparison_loss(rewards[:, 0], rewards[:, 1])
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(scorer.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % 20 == 0 or step + 1 == len(batches):
            report((step + 1) / len(batches), f"step {step + 1} of {len(batches)}")
            run.metric("reward_loss", float(loss.detach()), step + 1)
    return scorer


@torch.no_grad()
def rewards_of(encoder: Encoder, policy: Policy, scorer: Scorer, sources: Tensor, summaries: Tensor) -> Tensor:
    """Rewards ``(N, n)`` of summaries ``(N, n, T)``, on the CPU; ``policy`` is the supervised one."""
    device = encoder.embedding.weight.device
    found = [
        scorer(encoder, policy, encoder(trim(sources[part].to(device))), summaries[part].to(device)).cpu()
        for part in _parts(len(sources))
    ]
    return torch.cat(found)


@torch.no_grad()
def _log_probs(encoder: Encoder, policy: Policy, sources: Tensor, summaries: Tensor) -> Tensor:
    found = [
        token_log_probs(encoder, policy, encoder(trim(sources[part])), summaries[part]) for part in _parts(len(sources))
    ]
    return torch.cat(found)


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
    scorer.shift += float(rewards_of(encoder, policy, scorer, examples.sources, examples.summaries[:, None]).mean())
