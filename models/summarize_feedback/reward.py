"""Stage 2: a reward model from comparisons (Stiennon et al. 2020, section 3.4)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional as F

from models.core.inputs import Int64
from models.core.run import Run
from models.summarize_feedback.examples import encode_pairs, length_batches, trim
from models.summarize_feedback.network import Encoder, Policy, Shape
from models.summarize_feedback.schema import RewardOptions
from models.summarize_feedback.scorer import Scorer, mean_log_probs
from models.summarize_feedback.tokenizer import PAD

_TOGETHER = 8  # most comparisons of a text in one batch
Report = Callable[[float, str], None]


def comparison_loss(preferred: Tensor, other: Tensor) -> Tensor:
    """``-log sigmoid(r_w - r_l)``, averaged."""
    return -F.logsigmoid(preferred - other).mean()


def scorer_from(policy: Policy, shape: Shape, seed: int) -> Scorer:
    """The policy's decoder with a new scalar head, on its device."""
    torch.manual_seed(seed)
    scorer = Scorer(shape)
    scorer.decoder.load_state_dict(policy.decoder.state_dict())
    return scorer.to(policy.bias.device).eval()


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
    comparisons = _Comparisons(sources, summaries, run.device)
    comparisons.find_likelihoods(encoder, policy)
    optimizer = torch.optim.AdamW(
        scorer.parameters(), lr=options.learning_rate, betas=(0.9, 0.98), weight_decay=0.01,
        fused=comparisons.sources.is_cuda,
    )  # fmt: skip
    generator = np.random.default_rng(run.seed)
    batches = [chosen for _ in range(options.epochs) for chosen in comparisons.batches(options.batch_size, generator)]
    for step, chosen in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = options.learning_rate * min(1.0, (step + 1) / 20) * max(0.05, 1 - step / len(batches))
        texts, written, likelihoods, valid = comparisons.batch(chosen)
        with torch.no_grad():
            encoded = encoder(texts)
        rewards = scorer.judge(encoder, encoded, written, likelihoods).view(*valid.shape, 2)[valid]
        loss = comparison_loss(rewards[:, 0], rewards[:, 1])
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(scorer.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % 20 == 0 or step + 1 == len(batches):
            report((step + 1) / len(batches), f"step {step + 1} of {len(batches)}")
            run.metric("reward_loss", float(loss.detach()), step + 1)
    return scorer


class _Comparisons:
    """Comparisons, those of one text together, so that a text is read once for all of them."""

    def __init__(self, sources: Tensor, summaries: Tensor, device: str) -> None:
        _, text = np.unique(sources.numpy(), axis=0, return_inverse=True)
        order = np.argsort(text, kind="stable")
        parts = np.split(order, np.flatnonzero(np.diff(text[order])) + 1)
        self._groups = [part[start : start + _TOGETHER] for part in parts for start in range(0, len(part), _TOGETHER)]
        self._read = (sources != PAD).sum(dim=1).numpy()
        self._written = (summaries != PAD).sum(dim=2).amax(dim=1).numpy()
        self.sources, self._summaries = sources.to(device), summaries.to(device)
        self._likelihoods = torch.zeros(summaries.shape[:2], device=device)

    @torch.no_grad()
    def find_likelihoods(self, encoder: Encoder, policy: Policy) -> None:
        """Work out what the reward adds to the scalar head, which training leaves as it is."""
        for start in range(0, len(self._groups), 128):
            chosen = np.arange(start, min(start + 128, len(self._groups)))
            texts, written, _, valid = self.batch(chosen)
            found = mean_log_probs(encoder, policy, encoder(texts), written).view(*valid.shape, 2)[valid]
            rows = np.concatenate([self._groups[i] for i in chosen])
            self._likelihoods[torch.from_numpy(rows).to(found.device)] = found

    def batches(self, size: int, generator: np.random.Generator) -> Iterator[Int64]:
        """One epoch of groups, about ``size`` comparisons a batch."""
        counted = np.array([self._read[group[0]] for group in self._groups])
        groups = max(1, round(size * len(self._groups) / len(self._read)))
        return length_batches(counted, min(groups, len(self._groups)), generator)

    def batch(self, chosen: Int64) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Texts ``(B, S)``, summaries ``(B, 2 n, T)``, likelihoods ``(B, 2 n)``, and which n are there ``(B, n)``."""
        groups = [self._groups[i] for i in chosen]
        rows = np.stack([np.pad(group, (0, _TOGETHER - len(group)), constant_values=-1) for group in groups])
        rows = rows[:, : max(map(len, groups))]
        text, longest = int(self._read[rows[:, 0]].max()), int(self._written[rows[rows >= 0]].max())
        index = torch.from_numpy(rows).to(self.sources.device)
        filled = index.clamp(min=0)  # what fills up a group is not counted
        written, likelihoods = (
            self._summaries[filled][..., :longest].flatten(1, 2),
            self._likelihoods[filled].flatten(1),
        )
        return self.sources[index[:, 0], :text], written, likelihoods, index >= 0


@torch.no_grad()
def rewards_of(encoder: Encoder, policy: Policy, scorer: Scorer, sources: Tensor, summaries: Tensor) -> Tensor:
    """Rewards ``(N, n)`` of summaries ``(N, n, T)``, on the CPU; ``policy`` is the supervised one."""
    device = encoder.embedding.weight.device
    found = [
        scorer(encoder, policy, encoder(trim(sources[part].to(device))), summaries[part].to(device)).cpu()
        for part in _parts(len(sources))
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
