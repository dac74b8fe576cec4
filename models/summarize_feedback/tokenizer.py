"""Byte-level BPE: any text can be read, nothing in it is taken for a special token."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer

from models.core.checkpoint import CheckpointError
from models.core.inputs import InputError

PAD, BOS, EOS, SEP = range(4)
SPECIALS = ("<pad>", "<bos>", "<eos>", "<sep>")
_CONTROL = dict.fromkeys([*range(32), *range(127, 160)], " ")


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> Tokenizer:
    """Learn at most ``vocabulary`` tokens, the four specials and the 256 bytes among them."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIALS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((clean(text) for text in texts), trainer)
    tokenizer.encode_special_tokens = True
    return tokenizer


def clean(text: str) -> str:
    """``text`` without control characters and with white space collapsed; a lone surrogate becomes a question mark."""
    return " ".join(text.encode("utf-8", "replace").decode("utf-8").translate(_CONTROL).split())


def encode_text(tokenizer: Tokenizer, text: str) -> list[int]:
    """All tokens of a text.

    Raises:
        InputError: the text holds nothing but white space and control characters.
    """
    cleaned = clean(text)
    if not cleaned:
        raise InputError("the text is empty")
    return list(tokenizer.encode(cleaned, add_special_tokens=False).ids)


def windows_of(tokens: Sequence[int], limit: int, count: int) -> list[list[int]]:
    """A text as at most ``count`` windows of at most ``limit`` tokens.

    A text that fits is one window. Each window of a longer one is the text's first half-window, which says what it is
    about, <sep>, and another piece of the rest: the pieces in order, and the text's end always among them.
    """
    if len(tokens) <= limit:
        return [list(tokens)]
    head, piece = _parts(limit)
    last = len(tokens) - piece
    starts = sorted({min(start, last) for start in range(head, len(tokens), piece)})
    if len(starts) > count:
        starts = [*starts[: count - 1], last]
    return [[*tokens[:head], SEP, *tokens[start : start + piece]] for start in starts]


def covered(limit: int, count: int) -> int:
    """The longest text, in tokens, that ``count`` windows hold without a gap."""
    head, piece = _parts(limit)
    return max(limit, head + count * piece)


def _parts(limit: int) -> tuple[int, int]:
    """Tokens of the beginning that every window repeats, and of the piece that follows its <sep>."""
    return limit // 2, limit - limit // 2 - 1


def encode_summary(tokenizer: Tokenizer, text: str, limit: int) -> list[int]:
    """A summary's tokens and <eos>; a longer one is cut to ``limit`` tokens and does not end."""
    return encode_summaries(tokenizer, [text], limit)[0]


def encode_summaries(tokenizer: Tokenizer, texts: Sequence[str], limit: int) -> list[list[int]]:
    """:func:`encode_summary` of each."""
    found = tokenizer.encode_batch([clean(text) for text in texts], add_special_tokens=False)
    return [[*each.ids, EOS][:limit] for each in found]


def decode(tokenizer: Tokenizer, tokens: Sequence[int]) -> str:
    """The text of ``tokens`` up to <eos> or the padding."""
    return decode_all(tokenizer, [tokens])[0]


def decode_all(tokenizer: Tokenizer, rows: Sequence[Sequence[int]]) -> list[str]:
    """The text of each row up to <eos> or the padding."""
    found = tokenizer.decode_batch([_ended(list(row)) for row in rows], skip_special_tokens=False)
    return [str(text).strip() for text in found]


def _ended(ids: list[int]) -> list[int]:
    end = next((position for position, token in enumerate(ids) if token in (EOS, PAD)), len(ids))
    return ids[:end]


def pack_tokenizer(tokenizer: Tokenizer) -> torch.Tensor:
    """The tokenizer's JSON as uint8 ``(bytes,)``, so that it lies in the checkpoint under the hash of the weights."""
    return torch.frombuffer(bytearray(tokenizer.to_str().encode()), dtype=torch.uint8)


def unpack_tokenizer(packed: torch.Tensor) -> Tokenizer:
    """Read what :func:`pack_tokenizer` wrote.

    Raises:
        CheckpointError: it is no tokenizer.
    """
    try:
        tokenizer = Tokenizer.from_str(bytes(packed.cpu().numpy()).decode("utf-8"))
    except Exception as error:  # the library raises nothing more specific
        raise CheckpointError(f"tokenizer: {error}") from error
    tokenizer.encode_special_tokens = True
    return tokenizer
