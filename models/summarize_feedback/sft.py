"""Stage 1: maximum likelihood of the reference summaries (teacher forcing)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models.core.run import Run
from models.core.training import pack_training, unpack_training
from models.summarize_feedback.examples import Examples, length_batches, shift_right, trim
from models.summarize_feedback.network import Encoder, Policy, Shape
from models.summarize_feedback.schema import SupervisedOptions
from models.summarize_feedback.tokenizer import PAD

_SAVE_EVERY, _REPORT_EVERY = 250, 20
Report = Callable[[float, str], None]


def summary_log_probs(encoder: Encoder, policy: Policy, sources: Tensor, summaries: Tensor) -> Tensor:
    """Log-probability of each token of ``summaries`` ``(B, T)`` that is not padding, as one vector."""
    targets = summaries[:, None]
    rows = targets != PAD
    log_probs: Tensor = policy(encoder, encoder(sources), shift_right(targets), rows)
    return log_probs.gather(1, targets[rows][:, None]).squeeze(1)


def rate_at(step: int, steps: int, warmup: int) -> float:
    """Factor of the learning rate: linear warm-up, then linear to 5%."""
    if step < warmup:
        return (step + 1) / warmup
    return max(0.05, 1 - 0.95 * (step - warmup) / max(1, steps - warmup))


def train_supervised(
    examples: Examples, shape: Shape, options: SupervisedOptions, run: Run, report: Report
) -> tuple[Encoder, Policy]:
    """Train encoder and policy from nothing; resumes bit for bit.

    Raises:
        Cancelled: the user asked for it.
        FloatingPointError: training diverged.
    """
    torch.manual_seed(run.seed)
    encoder, policy = Encoder(shape, options.dropout), Policy(shape, options.dropout)
    modules = nn.ModuleDict({"encoder": encoder, "policy": policy})
    optimizer = torch.optim.AdamW(
        modules.parameters(), lr=options.learning_rate, betas=(0.9, 0.98), weight_decay=options.weight_decay
    )
    state = run.load_state()
    done = 0
    if state is not None and state[1].get("stage") == "sft":
        unpack_training(state[0], state[1], {"model": modules}, {"adam": optimizer}, {})
        done = state[1]["step"]
    steps = options.total_steps(len(examples))
    for step, chosen in enumerate(_batches(examples, options.batch_size, run.seed)):
        if step < done:
            continue
        if step == steps:
            break
        loss = _step(modules, optimizer, examples, chosen, options, rate_at(step, steps, options.warmup_steps(steps)))
        if not np.isfinite(loss):
            raise FloatingPointError("the supervised training diverged; lower the learning rate")
        if (step + 1) % _REPORT_EVERY == 0:
            report((step + 1) / steps, f"step {step + 1} of {steps}, loss {loss:.3f}")
            run.metric("sft_loss", loss, step + 1)
        if (step + 1) % _SAVE_EVERY == 0:
            arrays, meta = pack_training({"model": modules}, {"adam": optimizer}, {})
            run.save_state(arrays, meta | {"stage": "sft", "step": step + 1})
    modules.eval()
    return encoder, policy


def _batches(examples: Examples, size: int, seed: int) -> Iterator[Any]:
    lengths = (examples.sources != PAD).sum(dim=1).numpy()
    generator = np.random.default_rng(seed)
    while True:
        yield from length_batches(lengths, min(size, len(lengths)), generator)


def _step(
    modules: nn.ModuleDict,
    optimizer: torch.optim.Optimizer,
    examples: Examples,
    chosen: Any,
    options: SupervisedOptions,
    rate: float,
) -> float:
    for group in optimizer.param_groups:
        group["lr"] = options.learning_rate * rate
    index = torch.from_numpy(chosen)
    encoder, policy = modules["encoder"], modules["policy"]
    assert isinstance(encoder, Encoder)
    assert isinstance(policy, Policy)
    loss = -summary_log_probs(encoder, policy, trim(examples.sources[index]), trim(examples.summaries[index])).mean()
    optimizer.zero_grad()
    torch.autograd.backward(loss)
    nn.utils.clip_grad_norm_(modules.parameters(), 1.0)
    optimizer.step()
    return float(loss.detach())


@torch.no_grad()
def perplexity(encoder: Encoder, policy: Policy, examples: Examples, batch_size: int = 256) -> float:
    """Exponential of the mean negative log-probability of a reference token."""
    found = [
        summary_log_probs(
            encoder, policy, trim(examples.sources[start : start + batch_size]),
            trim(examples.summaries[start : start + batch_size]),
        )
        for start in range(0, len(examples), batch_size)
    ]  # fmt: skip
    return float(torch.exp(-torch.cat(found).mean()))
