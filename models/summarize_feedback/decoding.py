"""Drawing summaries: keys and values are kept, texts that are done leave the batch, seeds fix the outcome."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.summarize_feedback.network import Encoded, Encoder, Policy
from models.summarize_feedback.tokenizer import BOS, EOS, PAD

_LONGEST = 32  # uniforms are drawn for so many tokens, whatever is asked for, so that a longer limit changes no token


@dataclass(frozen=True, eq=False)
class Drawn:
    """Drawn summaries.

    Attributes:
        tokens: int64 ``(B, n, T)`` on the networks' device, <pad> after <eos>.
        log_probs: float32 ``(B, n)``, of the whole summary at temperature 1, without truncation.
    """

    tokens: Tensor
    log_probs: Tensor

    @property
    def ended(self) -> Tensor:
        """Bool ``(B, n)``: whether the policy ended it."""
        return (self.tokens == EOS).any(dim=2)


def uniforms(seed: int, texts: Sequence[str], n: int) -> Tensor:
    """Float64 ``(B, n, 32)`` in [0, 1); a row depends on the seed, its text and its number alone."""
    found = np.empty((len(texts), n, _LONGEST))
    for position, text in enumerate(texts):
        key = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8]
        generator = np.random.default_rng([seed, int.from_bytes(key, "little")])
        found[position] = generator.random((n, _LONGEST))
    return torch.from_numpy(found)


def next_token_distribution(log_probs: Tensor, temperature: float, top_p: float) -> Tensor:
    """Probabilities ``(R, V)``: ``softmax(log p / T)``, of which the likeliest of total ``top_p`` are kept."""
    probabilities = (log_probs if temperature == 1 else log_probs / temperature).softmax(dim=1)
    if top_p == 1:
        return probabilities
    ordered, order = probabilities.sort(dim=1, descending=True)
    ordered = ordered.masked_fill(ordered.cumsum(dim=1) - ordered >= top_p, 0)
    return torch.zeros_like(probabilities).scatter_(1, order, ordered)


def pick(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """Invert the distribution function: int64 ``(R,)`` from ``(R, V)`` and ``(R,)`` in [0, 1)."""
    summed = probabilities.cumsum(dim=1)
    total = summed[:, -1:]
    below = torch.nextafter(total, torch.zeros_like(total))  # a product rounded up to the total would find no token
    wanted = torch.minimum(uniform[:, None].to(total.dtype) * total, below)
    return torch.searchsorted(summed, wanted, right=True).squeeze(1)


@torch.no_grad()
def draw(
    encoder: Encoder,
    policy: Policy,
    encoded: Encoded,
    uniform: Tensor,
    *,
    temperature: float,
    max_tokens: int,
    top_p: float = 1.0,
) -> Drawn:
    """Draw ``n`` summaries of each text.

    Args:
        uniform: float64 ``(B, n, >= max_tokens)``, which decide the draws; only their shape matters at temperature 0.
        max_tokens: after which a summary is cut.
    """
    texts, n, _ = uniform.shape
    device = encoded.memory.device
    uniform = uniform.to(device)
    tokens = torch.full((texts, n, max_tokens), PAD, device=device)
    log_probs = torch.zeros(texts, n, device=device)
    live = torch.arange(texts, device=device)
    ended = torch.zeros(texts, n, dtype=torch.bool, device=device)
    text, keys = policy.decoder.text_keys_values(encoded), policy.copy_key(encoded.memory)
    last = torch.full((texts, n, 1), BOS, device=device)
    past: list[Tensor] | None = None
    for step in range(max_tokens):
        hidden, past = policy.decoder(encoder.embed(last), text, encoded.mask, past)
        found = policy.log_probs(hidden, keys, encoded, encoder.embedding.weight, None)
        chosen = _choose(found, uniform[live, :, step].flatten(), temperature, top_p)
        gained = found.gather(1, chosen[:, None]).view(len(live), n)
        chosen = chosen.view(len(live), n).masked_fill(ended, PAD)
        tokens[live, :, step] = chosen
        log_probs[live] += gained.masked_fill(ended, 0)
        ended = ended | (chosen == EOS)
        last = chosen[..., None]
        going = (~ended).any(dim=1)
        if not going.any():
            break
        if going.sum() <= 0.75 * len(live):
            live, ended, last = live[going], ended[going], last[going]
            past = [cache.unflatten(1, (-1, n))[:, going].flatten(1, 2) for cache in past]
            text = [cache[:, going] for cache in text]
            keys, encoded = keys[going], Encoded(encoded.memory[going], encoded.tokens[going])
    return Drawn(tokens[:, :, : step + 1], log_probs)


def _choose(log_probs: Tensor, uniform: Tensor, temperature: float, top_p: float) -> Tensor:
    if temperature == 0:
        return log_probs.argmax(dim=1)
    return pick(next_token_distribution(log_probs, temperature, top_p), uniform)
