"""The decoder with a scalar head: reward model and value network."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.summarize_feedback.network import Decoder, Encoded, Encoder, Policy, Shape, lengths
from models.summarize_feedback.tokenizer import BOS


class Scorer(nn.Module):
    """A decoder that gives one number at each position; the reward is the one at the last token.

    To it the reward adds the mean log-probability per token under the supervised policy, with a learnt weight:
    that alone agrees with preferences more often than a scalar head does that some ten thousand comparisons trained,
    and a head without the vocabulary cannot work it out.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.decoder = Decoder(shape)
        self.head = nn.Linear(shape.width, 1)
        self.likelihood = nn.Parameter(torch.tensor(0.5))
        self.shift: Tensor
        self.register_buffer("shift", torch.zeros(()))
        nn.init.normal_(self.head.weight, std=(shape.width + 1) ** -0.5)
        nn.init.zeros_(self.head.bias)

    def value(self, encoder: Encoder, encoded: Encoded, inputs: Tensor) -> Tensor:
        """Values ``(B, n, T)`` after each of ``inputs`` ``(B, n, T)``."""
        text = self.decoder.text_keys_values(encoded)
        hidden, _ = self.decoder(encoder.embed(inputs), text, encoded.mask)
        values: Tensor = self.head(hidden).squeeze(-1) - self.shift
        return values

    def judge(self, encoder: Encoder, encoded: Encoded, summaries: Tensor, likelihoods: Tensor) -> Tensor:
        """Rewards ``(B, n)`` of summaries ``(B, n, T)`` whose :func:`mean_log_probs` ``(B, n)`` are known."""
        start = torch.full_like(summaries[..., :1], BOS)
        values = self.value(encoder, encoded, torch.cat([start, summaries], dim=-1))
        return values.gather(2, lengths(summaries)[..., None]).squeeze(2) + self.likelihood * likelihoods

    def forward(self, encoder: Encoder, supervised: Policy, encoded: Encoded, summaries: Tensor) -> Tensor:
        """Rewards ``(B, n)`` of whole summaries ``(B, n, T)``, read at the last token up to <eos>."""
        return self.judge(encoder, encoded, summaries, mean_log_probs(encoder, supervised, encoded, summaries))


def token_log_probs(encoder: Encoder, policy: Policy, encoded: Encoded, summaries: Tensor) -> Tensor:
    """Log-probability at temperature 1 of each token of ``summaries`` ``(B, n, T)`` up to <eos>, 0 after it."""
    rows = torch.arange(summaries.shape[2], device=summaries.device) < lengths(summaries)[..., None]
    start = torch.full_like(summaries[..., :1], BOS)
    found = policy(encoder, encoded, torch.cat([start, summaries[..., :-1]], dim=-1), rows)
    picked = found.gather(1, summaries[rows][:, None]).squeeze(1)
    return torch.zeros(summaries.shape, device=picked.device).masked_scatter(rows, picked.float())


def mean_log_probs(encoder: Encoder, policy: Policy, encoded: Encoded, summaries: Tensor) -> Tensor:
    """Mean log-probability per token ``(B, n)`` of summaries ``(B, n, T)`` up to <eos>, at temperature 1."""
    return token_log_probs(encoder, policy, encoded, summaries).sum(dim=2) / lengths(summaries)
