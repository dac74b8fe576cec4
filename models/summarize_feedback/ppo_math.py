"""The formulas of stage 3, on padded tensors ``(B, T)`` with a mask of valid tokens."""

from __future__ import annotations

import torch
from torch import Tensor


def token_rewards(log_ratio: Tensor, scores: Tensor, mask: Tensor, beta: float) -> Tensor:
    """``-beta (log pi_old - log pi_sft)`` at each token, the score added at the last valid one (Stiennon et al., 3.4).

    Args:
        log_ratio: ``log pi_old(y_t) - log pi_sft(y_t)``, ``(B, T)``.
        scores: of the whole summaries, ``(B,)``.
        mask: bool ``(B, T)``, True at tokens up to and with <eos>.
    """
    rewards = (-beta * log_ratio).masked_fill(~mask, 0)
    last = mask.sum(dim=1, keepdim=True) - 1
    return rewards.scatter_add(1, last, scores[:, None])


def generalised_advantages(rewards: Tensor, values: Tensor, mask: Tensor, lam: float) -> tuple[Tensor, Tensor]:
    """``A_t = delta_t + lambda A_{t+1}``, ``delta_t = r_t + V_{t+1} - V_t``, gamma 1; and returns ``A + V``.

    Schulman et al. 2016, eq. 16. Values after the last valid token count as 0.
    """
    values = values.masked_fill(~mask, 0)
    advantages = torch.zeros_like(rewards)
    following, after = torch.zeros_like(rewards[:, 0]), torch.zeros_like(rewards[:, 0])
    for step in range(rewards.shape[1] - 1, -1, -1):
        following = rewards[:, step] + after - values[:, step] + lam * following
        following = following * mask[:, step]
        advantages[:, step], after = following, values[:, step]
    return advantages, advantages + values


def whiten(x: Tensor, mask: Tensor, epsilon: float = 1e-8) -> Tensor:
    """Zero mean and unit (population) variance over the valid tokens; 0 elsewhere."""
    valid = x[mask]
    return ((x - valid.mean()) * (valid.var(correction=0) + epsilon).rsqrt()).masked_fill(~mask, 0)


def policy_loss(ratio: Tensor, advantages: Tensor, clip: float) -> Tensor:
    """``max(-A rho, -A clip(rho, 1 - eps, 1 + eps))`` of each token (Schulman et al. 2017, eq. 7)."""
    return torch.maximum(-advantages * ratio, -advantages * ratio.clamp(1 - clip, 1 + clip))


def value_loss(values: Tensor, old: Tensor, returns: Tensor, clip: float) -> Tensor:
    """``.5 max((V - R)^2, (clip(V, V_old +- eps) - R)^2)`` of each token."""
    clipped = old + (values - old).clamp(-clip, clip)
    return 0.5 * torch.maximum((values - returns) ** 2, (clipped - returns) ** 2)


def kl_estimates(log_ratio: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Schulman's ``k1``, ``k2``, ``k3`` of ``KL(p || q)`` from ``log p - log q`` at samples of ``p``."""
    return log_ratio, 0.5 * log_ratio**2, torch.expm1(-log_ratio) + log_ratio
