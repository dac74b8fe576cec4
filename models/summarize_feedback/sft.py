"""Stage 1: maximum likelihood of the reference summaries (teacher forcing)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models.core.run import Run
from models.core.training import pack_training, unpack_training
from models.summarize_feedback.examples import Examples, length_batches, shift_right
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
    modules = nn.ModuleDict({"encoder": encoder, "policy": policy}).to(run.device)
    examples = examples.to(run.device)
    optimizer = torch.optim.AdamW(
        modules.parameters(), lr=options.learning_rate, betas=(0.9, 0.98), weight_decay=options.weight_decay,
        fused=examples.sources.is_cuda,
    )  # fmt: skip
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
        if (step + 1) % _REPORT_EVERY == 0 or step + 1 == steps:
            found = float(loss)  # waits for the device
            if not np.isfinite(found):
                raise FloatingPointError("the supervised training diverged; lower the learning rate")
            report((step + 1) / steps, f"step {step + 1} of {steps}, loss {found:.3f}")
            run.metric("sft_loss", found, step + 1)
        if (step + 1) % _SAVE_EVERY == 0:
            arrays, meta = pack_training({"model": modules}, {"adam": optimizer}, {})
            run.save_state(arrays, meta | {"stage": "sft", "step": step + 1})
    modules.eval()
    return encoder, policy


def _batches(examples: Examples, size: int, seed: int) -> Iterator[Any]:
    generator = np.random.default_rng(seed)
    while True:
        yield from length_batches(examples.lengths[0], min(size, len(examples)), generator)


def _step(
    modules: nn.ModuleDict,
    optimizer: torch.optim.Optimizer,
    examples: Examples,
    chosen: Any,
    options: SupervisedOptions,
    rate: float,
) -> Tensor:
    for group in optimizer.param_groups:
        group["lr"] = options.learning_rate * rate
    encoder, policy = modules["encoder"], modules["policy"]
    assert isinstance(encoder, Encoder)
    assert isinstance(policy, Policy)
    loss = -summary_log_probs(encoder, policy, *examples.batch(chosen)).mean()
    optimizer.zero_grad()
    torch.autograd.backward(loss)
    nn.utils.clip_grad_norm_(modules.parameters(), 1.0)
    optimizer.step()
    return loss.detach()


@torch.no_grad()
def perplexity(encoder: Encoder, policy: Policy, examples: Examples, batch_size: int = 256) -> float:
    """Exponential of the mean negative log-probability of a reference token."""
    examples = examples.to(encoder.embedding.weight.device)
    found = [
        summary_log_probs(encoder, policy, *examples.batch(slice(start, start + batch_size)))
        for start in range(0, len(examples), batch_size)
    ]
    return float(torch.exp(-torch.cat(found).mean()))
