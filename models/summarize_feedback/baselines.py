"""What the reward model and PPO have to beat: learning from the same comparisons without them."""

from __future__ import annotations

from copy import deepcopy
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.summarize_feedback.examples import length_batches, trim
from models.summarize_feedback.network import Encoder, Policy
from models.summarize_feedback.scorer import token_log_probs
from models.summarize_feedback.tokenizer import PAD

Baseline = Literal["dpo", "preferred"]


def dpo_loss(policy: Tensor, reference: Tensor, beta: float) -> Tensor:
    """``-log sigmoid(beta [(log pi - log pi_ref)(y_w) - (log pi - log pi_ref)(y_l)])`` (Rafailov et al. 2023, eq. 7).

    Args:
        policy, reference: log-probabilities of the preferred and the other summary, ``(B, 2)``.
        beta: how much the divergence from the reference costs.
    """
    gained = policy - reference
    return -F.logsigmoid(beta * (gained[:, 0] - gained[:, 1])).mean()


def tune_on_comparisons(
    encoder: Encoder, reference: Policy, sources: Tensor, summaries: Tensor, loss: Baseline,
    *, beta: float, learning_rate: float, batch_size: int, seed: int,
) -> Policy:  # fmt: skip
    """One pass of a copy of ``reference`` over comparisons, at a rate that falls linearly.

    Args:
        sources: int64 ``(N, S)``.
        summaries: int64 ``(N, 2, T)``, the preferred one first.
        loss: ``dpo``, or ``preferred``: likelihood of the preferred summaries, which is expert iteration.
    """
    encoder.requires_grad_(False)
    policy = deepcopy(reference).requires_grad_(True)
    device = encoder.embedding.weight.device
    optimizer = torch.optim.Adam(policy.parameters(), lr=learning_rate, eps=1e-5)
    counted = (sources != PAD).sum(dim=1).numpy()
    sources, summaries = sources.to(device), summaries.to(device)
    batches = list(length_batches(counted, min(batch_size, len(sources)), np.random.default_rng(seed)))
    for step, chosen in enumerate(batches):
        optimizer.param_groups[0]["lr"] = learning_rate * max(0.05, 1 - step / len(batches))
        rows = torch.from_numpy(chosen).to(device)
        encoded, written = encoder(trim(sources[rows])), summaries[rows]
        if loss == "dpo":
            found = token_log_probs(encoder, policy, encoded, written).sum(dim=2)
            with torch.no_grad():
                before = token_log_probs(encoder, reference, encoded, written).sum(dim=2)
            objective = dpo_loss(found, before, beta)
        else:
            likely = token_log_probs(encoder, policy, encoded, written[:, :1])
            objective = -likely.sum() / (likely != 0).sum()
        optimizer.zero_grad()
        torch.autograd.backward(objective)
        nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()
    return policy.eval()
