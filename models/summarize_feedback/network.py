"""A small encoder-decoder with a copy head.

Decoders take ``n`` sequences an input: ``(inputs, n, length)``. The ``n`` sequences are queries to one encoded text,
which is therefore never tiled.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.summarize_feedback.tokenizer import EOS, PAD, SEP, SPECIALS

_EPSILON = 1e-9


@dataclass(frozen=True)
class Shape:
    """Sizes of the networks; lengths in tokens."""

    vocabulary: int = 4096
    width: int = 128
    heads: int = 4
    encoder_layers: int = 3
    decoder_layers: int = 2
    source_tokens: int = 96
    summary_tokens: int = 32


class Attention(nn.Module):
    """Multi-head attention whose keys and values can be made once and kept."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.output = nn.Linear(width, width)

    def keys_values(self, x: Tensor) -> Tensor:
        """Keys and values of ``(B, S, width)``: ``(2, B, heads, S, width / heads)``."""
        made: Tensor = self.key_value(x).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return made

    def forward(self, x: Tensor, keys_values: Tensor, mask: Tensor | None = None, causal: bool = False) -> Tensor:
        """Attend from ``(B, T, width)``; ``mask`` is True where a key may be seen."""
        query = self.query(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        found = F.scaled_dot_product_attention(query, keys_values[0], keys_values[1], attn_mask=mask, is_causal=causal)
        joined: Tensor = self.output(found.transpose(1, 2).flatten(2))
        return joined


def _feedforward(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))


class EncoderLayer(nn.Module):
    """Pre-norm self-attention and feed-forward."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention, self.feedforward = Attention(width, heads), _feedforward(width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """Transform ``(B, S, width)``."""
        normed = self.norms[0](x)
        x = x + self.dropout(self.attention(normed, self.attention.keys_values(normed), mask))
        transformed: Tensor = x + self.dropout(self.feedforward(self.norms[1](x)))
        return transformed


@dataclass(eq=False)
class Encoded:
    """Encoded texts: ``memory`` float32 ``(B, S, width)``, ``tokens`` int64 ``(B, S)``, padded with <pad>."""

    memory: Tensor
    tokens: Tensor

    @property
    def mask(self) -> Tensor:
        """True at tokens: ``(B, 1, 1, S)``."""
        return (self.tokens != PAD)[:, None, None]

    def select(self, rows: Tensor) -> Encoded:
        """Some of the texts, cut to the longest of them."""
        tokens = self.tokens[rows]
        longest = int((tokens != PAD).sum(dim=1).max())
        return Encoded(self.memory[rows, :longest], tokens[:, :longest])


class Encoder(nn.Module):
    """Token embeddings (the decoders' too) and self-attention over the text.

    Each position also sees the token before it ("smeared keys", Olsson et al. 2022): what follows a word that was just
    written can then be found in one step of attention, so copying is learnt within some hundred steps.
    """

    def __init__(self, shape: Shape, dropout: float = 0.0) -> None:
        super().__init__()
        self.embedding = nn.Embedding(shape.vocabulary, shape.width)
        self.positions = nn.Parameter(torch.randn(shape.source_tokens, shape.width) * 0.02)
        self.before = nn.Linear(shape.width, shape.width, bias=False)
        self.layers = nn.ModuleList(
            EncoderLayer(shape.width, shape.heads, dropout) for _ in range(shape.encoder_layers)
        )
        self.norm = nn.LayerNorm(shape.width)
        self.dropout = nn.Dropout(dropout)
        nn.init.normal_(self.embedding.weight, std=shape.width**-0.5)

    def embed(self, tokens: Tensor) -> Tensor:
        """Embeddings of int64 ``(..., )`` tokens: ``(..., width)``."""
        embedded: Tensor = self.embedding(tokens)
        return embedded

    def forward(self, tokens: Tensor) -> Encoded:
        """Encode int64 ``(B, S)``, padded on the right."""
        mask = (tokens != PAD)[:, None, None]
        embedded = self.embed(tokens)
        before = self.before(F.pad(embedded, (0, 0, 1, -1)))
        x = self.dropout(embedded + before + self.positions[: tokens.shape[1]])
        for layer in self.layers:
            x = layer(x, mask)
        return Encoded(self.norm(x), tokens)


class DecoderLayer(nn.Module):
    """Pre-norm causal self-attention, attention to the text, and feed-forward."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.own, self.cross = Attention(width, heads), Attention(width, heads)
        self.feedforward = _feedforward(width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, text: Tensor, mask: Tensor, past: Tensor | None) -> tuple[Tensor, Tensor]:
        """Transform ``(B, n, T, width)``.

        Args:
            x: the sequences.
            text: keys and values of the text, ``(2, B, heads, S, width / heads)``.
            mask: of the text, ``(B, 1, 1, S)``.
            past: keys and values of earlier positions, ``(2, B * n, heads, t, width / heads)``, or None.

        Returns:
            The output, and the keys and values of all positions so far.
        """
        shape = x.shape
        normed = self.norms[0](x).flatten(0, 1)
        keys_values = self.own.keys_values(normed)
        if past is not None:
            keys_values = torch.cat([past, keys_values], dim=3)
        x = x + self.dropout(self.own(normed, keys_values, causal=past is None).view(shape))
        queries = self.norms[1](x).flatten(1, 2)
        x = x + self.dropout(self.cross(queries, text, mask).view(shape))
        return x + self.dropout(self.feedforward(self.norms[2](x))), keys_values


class Decoder(nn.Module):
    """Causal layers over embedded tokens."""

    def __init__(self, shape: Shape, dropout: float = 0.0) -> None:
        super().__init__()
        self.positions = nn.Parameter(torch.randn(shape.summary_tokens + 1, shape.width) * 0.02)
        self.layers = nn.ModuleList(
            DecoderLayer(shape.width, shape.heads, dropout) for _ in range(shape.decoder_layers)
        )
        self.norm = nn.LayerNorm(shape.width)
        self.dropout = nn.Dropout(dropout)

    def text_keys_values(self, encoded: Encoded) -> list[Tensor]:
        """Keys and values of the text, one tensor a layer."""
        return [layer.cross.keys_values(encoded.memory) for layer in self.layers if isinstance(layer, DecoderLayer)]

    def forward(
        self, embedded: Tensor, text: list[Tensor], mask: Tensor, past: list[Tensor] | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """Hidden states of ``(B, n, T, width)`` and the cache; with ``past``, T is 1 and continues it."""
        start = 0 if past is None else past[0].shape[3]
        x = self.dropout(embedded + self.positions[start : start + embedded.shape[2]])
        caches = []
        for index, layer in enumerate(self.layers):
            x, cache = layer(x, text[index], mask, None if past is None else past[index])
            caches.append(cache)
        return self.norm(x), caches


def mix_copy(generated: Tensor, copied: Tensor, gate: Tensor, source: Tensor) -> Tensor:
    """``p(w) = g p_vocabulary(w) + (1 - g) sum_{j: x_j = w} a_j`` (See, Liu & Manning 2017, eq. 9).

    Args:
        generated: probabilities over the vocabulary, ``(R, V)``.
        copied: attention over the source, ``(R, S)``.
        gate: ``(R, 1)`` in [0, 1].
        source: int64 token ids, ``(R, S)``.
    """
    return (gate * generated).scatter_add_(1, source, (1 - gate) * copied)


def _at(x: Tensor, rows: Tensor | None) -> Tensor:
    return x.flatten(0, 2) if rows is None else x[rows]


class Policy(nn.Module):
    """A decoder whose next-token distribution mixes the vocabulary with the words of the text."""

    def __init__(self, shape: Shape, dropout: float = 0.0) -> None:
        super().__init__()
        self.decoder = Decoder(shape, dropout)
        self.copy_query = nn.Linear(shape.width, shape.width, bias=False)
        self.copy_key = nn.Linear(shape.width, shape.width, bias=False)
        self.gate = nn.Linear(shape.width, 1)
        self.bias = nn.Parameter(torch.zeros(shape.vocabulary))
        self.barred: Tensor
        self.register_buffer("barred", torch.tensor([i for i in range(len(SPECIALS)) if i != EOS]), persistent=False)

    def log_probs(
        self, hidden: Tensor, keys: Tensor, encoded: Encoded, embedding: Tensor, rows: Tensor | None
    ) -> Tensor:
        """Log-probabilities of the next token at the chosen positions.

        Args:
            hidden: ``(B, n, T, width)``.
            keys: the text's copy keys, ``(B, S, width)``.
            encoded: the texts.
            embedding: ``(V, width)``, tied.
            rows: bool ``(B, n, T)``: where they are wanted; None: everywhere.

        Returns:
            One row a chosen position, ``(R, V)``; specials other than <eos> have none (minus infinity).
        """
        chosen = _at(hidden, rows)
        scores = self.copy_query(hidden).flatten(1, 2) @ keys.transpose(1, 2) / hidden.shape[-1] ** 0.5
        words = (encoded.tokens != PAD) & (encoded.tokens != SEP)
        scores = scores.masked_fill(~words[:, None], -torch.inf).view(*hidden.shape[:3], -1)
        logits = F.linear(chosen, embedding, self.bias).index_fill_(1, self.barred, -torch.inf)
        source = _at(encoded.tokens[:, None, None].expand(*hidden.shape[:3], -1), rows)
        gate = torch.sigmoid(self.gate(chosen))
        mixed = mix_copy(logits.softmax(dim=-1), _at(scores, rows).softmax(dim=-1), gate, source)
        return mixed.add_(_EPSILON).log().index_fill_(1, self.barred, -torch.inf)

    def forward(self, encoder: Encoder, encoded: Encoded, inputs: Tensor, rows: Tensor) -> Tensor:
        """Teacher forcing: log-probabilities ``(rows.sum(), V)`` after each of ``inputs`` ``(B, n, T)``."""
        text = self.decoder.text_keys_values(encoded)
        hidden, _ = self.decoder(encoder.embed(inputs), text, encoded.mask)
        return self.log_probs(hidden, self.copy_key(encoded.memory), encoded, encoder.embedding.weight, rows)


def lengths(summaries: Tensor) -> Tensor:
    """Tokens of each summary ``(..., T)`` up to and with <eos>, or up to the padding where there is none."""
    ended = (summaries == EOS).cumsum(dim=-1) - (summaries == EOS).long() > 0
    return ((summaries != PAD) & ~ended).sum(dim=-1)
