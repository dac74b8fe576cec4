"""A reader and a decoder with a scalar head: reward model and value network."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.summarize_feedback.network import Decoder, Encoded, Encoder, Policy, Reader, Shape, lengths
from models.summarize_feedback.tokenizer import BOS


class Scorer(nn.Module):
    """Gives one number at each position of a summary; the reward is the one at the last token.

    All of it but the embedding starts as the supervised policy's and is its own (Stiennon et al., section 3.4). Beside
    each token it reads how likely the supervised policy held it, and to the number at the last token the reward adds
    the mean log-probability per token, both with learnt weights: a network without the vocabulary cannot work them out.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.reader, self.decoder = Reader(shape), Decoder(shape)
        self.surprise = nn.Linear(2, shape.width, bias=False)
        self.head = nn.Linear(shape.width, 1)
        self.likelihood = nn.Parameter(torch.tensor(0.5))
        self.shift: Tensor
        self.register_buffer("shift", torch.zeros(()))
        nn.init.zeros_(self.surprise.weight)
        nn.init.normal_(self.head.weight, std=(shape.width + 1) ** -0.5)
        nn.init.zeros_(self.head.bias)

    def read(self, encoder: Encoder, tokens: Tensor) -> Encoded:
        """Texts, int64 ``(B, S)``, as this network sees them."""
        return self.reader.read(encoder.embed(tokens), tokens)

    def value(self, encoder: Encoder, read: Encoded, inputs: Tensor, log_probs: Tensor) -> Tensor:
        """Values ``(B, n, T)`` after each of ``inputs`` ``(B, n, T)``.

        Args:
            read: the texts, by :meth:`read`.
            log_probs: of each of ``inputs`` under the supervised policy at temperature 1, 0 for <bos>.
        """
        text = self.decoder.text_keys_values(read)
        embedded = encoder.embed(inputs) + self.surprise(torch.stack([log_probs.exp(), log_probs / 4], dim=-1))
        hidden, _ = self.decoder(embedded, text, read.mask)
        values: Tensor = self.head(hidden).squeeze(-1) - self.shift
        return values

    def judge(self, encoder: Encoder, read: Encoded, summaries: Tensor, log_probs: Tensor) -> Tensor:
        """Rewards ``(B, n)`` of summaries ``(B, n, T)`` whose :func:`token_log_probs` are known."""
        start = torch.full_like(summaries[..., :1], BOS)
        values = self.value(encoder, read, torch.cat([start, summaries], dim=-1), F.pad(log_probs, (1, 0)))
        counts = lengths(summaries)
        mean = log_probs.sum(dim=2) / counts
        return values.gather(2, counts[..., None]).squeeze(2) + self.likelihood * mean

    def forward(self, encoder: Encoder, supervised: Policy, encoded: Encoded, summaries: Tensor) -> Tensor:
        """Rewards ``(B, n)`` of whole summaries ``(B, n, T)``, read at the last token up to <eos>.

        Args:
            encoded: the texts as the supervised policy sees them.
        """
        log_probs = token_log_probs(encoder, supervised, encoded, summaries)
        return self.judge(encoder, self.read(encoder, encoded.tokens), summaries, log_probs)


def token_log_probs(encoder: Encoder, policy: Policy, encoded: Encoded, summaries: Tensor) -> Tensor:
    """Log-probability at temperature 1 of each token of ``summaries`` ``(B, n, T)`` up to <eos>, 0 after it."""
    rows = torch.arange(summaries.shape[2], device=summaries.device) < lengths(summaries)[..., None]
    start = torch.full_like(summaries[..., :1], BOS)
    found = policy(encoder, encoded, torch.cat([start, summaries[..., :-1]], dim=-1), rows)
    picked = found.gather(1, summaries[rows][:, None]).squeeze(1)
    return torch.zeros(summaries.shape, device=picked.device).masked_scatter(rows, picked.float())
