"""From texts to ranked candidates: encode once, draw, score, choose the best n."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby, islice

import torch
from torch import Tensor

from models.core.inputs import InputError
from models.core.outputs import Candidate, Summary
from models.summarize_feedback.bundle import Bundle
from models.summarize_feedback.decoding import Drawn, draw, uniforms
from models.summarize_feedback.examples import encode_sources, encode_texts, pad
from models.summarize_feedback.network import Encoded, Policy, lengths
from models.summarize_feedback.schema import Params
from models.summarize_feedback.scorer import token_log_probs
from models.summarize_feedback.tokenizer import clean, covered, decode, decode_all, windows_of

_ROWS = {"cpu": 1024, "cuda": 16_384}  # summaries drawn together: beyond it, memory grows and nothing gets faster


@dataclass(frozen=True, eq=False)
class _Window:
    """What one pass of the encoder reads of a text: ``tokens``; ``key`` decides its draws."""

    text: int
    key: str
    tokens: list[int]
    draws: int


@dataclass(eq=False)
class _Written:
    """What the windows of one text gave."""

    candidates: list[Candidate] = field(default_factory=list)
    read: int = 0
    written: int = 0


@torch.no_grad()
def summarise(bundle: Bundle, texts: Sequence[str], params: Params) -> list[Summary]:
    """Draw ``params.draws`` summaries of each text and return the ``params.n`` of highest reward.

    The windows of a long text share the draws, at least one each, and their candidates compete by reward.

    Raises:
        InputError: a text is empty, or the version has no such policy or no reward model to choose by.
    """
    name = _policy_name(bundle, params)
    windows, truncated = _windows(bundle, texts, params)
    found = [_Written() for _ in texts]
    windows.sort(key=lambda window: (window.draws, len(window.tokens)))
    for draws, group in groupby(windows, key=lambda window: window.draws):
        while batch := list(islice(group, max(1, _rows_at_once(bundle) // draws))):
            _write(bundle, batch, draws, params, name, found)
    return [
        Summary(
            candidates=ranked(each.candidates)[: params.n],
            prompt_tokens=each.read,
            completion_tokens=each.written,
            truncated_input=cut,
        )
        for each, cut in zip(found, truncated, strict=True)
    ]


def ranked(candidates: Sequence[Candidate]) -> list[Candidate]:
    """By falling reward; what repeats a better one's text comes after all that does not, as nobody wants it twice."""
    first: list[Candidate] = []
    repeats: list[Candidate] = []
    seen: set[str] = set()
    for candidate in sorted(candidates, key=lambda candidate: candidate.reward, reverse=True):
        (repeats if candidate.text in seen else first).append(candidate)
        seen.add(candidate.text)
    return first + repeats


def _rows_at_once(bundle: Bundle) -> int:
    return _ROWS.get(bundle.device.type, _ROWS["cpu"])


def _policy_name(bundle: Bundle, params: Params) -> str:
    if params.policy == "ppo" and bundle.ppo is None:
        raise InputError("parameters/policy: this version has no policy tuned by PPO")
    if params.draws > params.n and bundle.reward is None and params.best_of is not None:
        raise InputError("best_of: this version has no reward model to choose by")
    return "sft" if params.policy == "sft" or bundle.ppo is None else "ppo"


def _windows(bundle: Bundle, texts: Sequence[str], params: Params) -> tuple[list[_Window], list[bool]]:
    """The windows of all texts, and which texts have more than theirs read."""
    limit = bundle.shape.source_tokens
    draws, most = (params.draws, params.windows) if bundle.reward is not None else (params.n, 1)
    found, truncated = [], []
    for number, (text, tokens) in enumerate(zip(texts, encode_texts(bundle.tokenizer, texts), strict=True)):
        windows = windows_of(tokens, limit, most)
        found += [
            _Window(number, f"{clean(text)}\0{position}", window, -(-draws // len(windows)))
            for position, window in enumerate(windows)
        ]
        truncated.append(len(tokens) > covered(limit, len(windows)))
    return found, truncated


def _write(
    bundle: Bundle, windows: Sequence[_Window], draws: int, params: Params, name: str,
    found: Sequence[_Written],
) -> None:  # fmt: skip
    encoded = bundle.encoder(pad([window.tokens for window in windows]).to(bundle.device))
    policy = bundle.ppo if name == "ppo" else bundle.sft
    assert policy is not None
    drawn = draw(
        bundle.encoder, policy, encoded, uniforms(params.seed, [window.key for window in windows], draws),
        temperature=params.temperature, max_tokens=params.max_tokens, top_p=params.top_p,
    )  # fmt: skip
    tokens = drawn.tokens
    rewards = (
        torch.zeros_like(drawn.log_probs)
        if bundle.reward is None
        else bundle.reward(bundle.encoder, bundle.sft, encoded, tokens)
    )
    order = rewards.argsort(dim=1, descending=True, stable=True)[:, : params.n]
    chosen = tokens.gather(1, order[..., None].expand(-1, -1, tokens.shape[2]))
    log_probs = drawn.log_probs.gather(1, order)
    before = log_probs if name == "sft" else sequence_log_probs(bundle, bundle.sft, encoded, chosen)
    columns = (chosen, rewards.gather(1, order), log_probs, before, drawn.ended.gather(1, order))
    chosen, rewards, log_probs, before, ended = (column.cpu() for column in columns)
    facts = {"policy": name, "seed": params.seed, "preference_source": bundle.preference_source}
    for row, (window, written) in enumerate(zip(windows, lengths(drawn.tokens).sum(dim=1).tolist(), strict=True)):
        gathered = found[window.text]
        gathered.read += len(window.tokens)
        gathered.written += written
        gathered.candidates += [
            Candidate(
                text=decode(bundle.tokenizer, chosen[row, column].tolist()),
                reward=float(rewards[row, column]),
                logprob=float(log_probs[row, column]),
                finish_reason="stop" if ended[row, column] else "length",
                details=facts
                | {
                    "logprob_sft": float(before[row, column]),
                    "kl": float(log_probs[row, column] - before[row, column]),
                },
            )
            for column in range(chosen.shape[1])
        ]


@torch.no_grad()
def drawn_batches(
    bundle: Bundle, policy: Policy, texts: Sequence[str],
    *, n: int, temperature: float, seed: int, max_tokens: int,
) -> Iterator[tuple[Encoded, Drawn]]:  # fmt: skip
    """``n`` summaries of each text, some texts at a time and in their order."""
    rows = _rows_at_once(bundle)
    size = max(1, min(rows // 8, rows // n))  # a text costs more than a draw of it does
    for start in range(0, len(texts), size):
        batch = texts[start : start + size]
        encoded = bundle.encoder(encode_sources(bundle.tokenizer, batch, bundle.shape)[0].to(bundle.device))
        uniform = uniforms(seed, batch, n)
        yield encoded, draw(
            bundle.encoder, policy, encoded, uniform, temperature=temperature, max_tokens=max_tokens
        )  # fmt: skip


def texts_of(bundle: Bundle, drawn: Drawn) -> list[list[str]]:
    """What was drawn for each text, as text."""
    n = drawn.tokens.shape[1]
    flat = decode_all(bundle.tokenizer, drawn.tokens.flatten(0, 1).tolist())
    return [flat[start : start + n] for start in range(0, len(flat), n)]


def sequence_log_probs(bundle: Bundle, policy: Policy, encoded: Encoded, tokens: Tensor) -> Tensor:
    """Log-probabilities ``(B, n)`` of whole summaries ``(B, n, T)`` at temperature 1."""
    return token_log_probs(bundle.encoder, policy, encoded, tokens).sum(dim=2)
