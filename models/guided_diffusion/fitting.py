"""The loop around a training's stages: batches, reports, and a resume point that continues bit for bit."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models.core.method import MethodError
from models.core.run import Run
from models.core.training import pack_training, unpack_training
from models.guided_diffusion.learners import Learner, Parts, Readings

REPORT_EVERY = 25
SAVE_EVERY = {"cpu": 100, "cuda": 1000}  # updates between resume points, seconds to a minute
Curves = dict[str, list[tuple[int, float]]]


@dataclass
class Progress:
    """How far a training is: the stage, its updates, and the curves of all stages."""

    stage: int = 0
    step: int = 0
    curves: Curves = field(default_factory=dict)


def fit(
    learners: Sequence[Learner],
    images: Tensor,
    labels: Tensor,
    run: Run,
    *,
    flip: bool,
    held_out: Callable[[Learner], Parts],
) -> Curves:
    """Train ``learners`` one after another, from the run's resume point where there is one.

    Args:
        images: uint8 ``(N, C, H, W)``.
        labels: int64 ``(N,)``; both are moved to the learners' device as a whole.
        held_out: metrics of a learner at the moment on pictures that it is not trained on.

    Returns:
        The curves of every stage: metric name -> points of step and value.

    Raises:
        MethodError: the training diverged.
        Cancelled: the user asked for it.
    """
    device = learners[0].device
    random = torch.Generator(device).manual_seed(run.seed)
    torch.manual_seed(run.seed)
    images, labels = images.to(device), labels.to(device)
    progress = _resume(run, learners, random)
    work = [learner.total * cost for learner, cost in zip(learners, _costs(learners), strict=True)]
    for position in range(progress.stage, len(learners)):
        learner = learners[position]
        if position != progress.stage:
            progress.stage, progress.step = position, 0
        started, first = time.monotonic(), progress.step
        while progress.step < learner.total:
            chosen = torch.randint(len(images), (learner.config.batch_size,), generator=random, device=device)
            start = images[chosen].float() / 127.5 - 1
            if flip:
                mirrored = torch.rand(len(start), generator=random, device=device) < 0.5
                start = torch.where(mirrored[:, None, None, None], start.flip(3), start)
            start = start.contiguous(memory_format=torch.channels_last)
            readings = learner.step(progress.step, start, labels[chosen], random)
            progress.step += 1
            if due := progress.step % SAVE_EVERY[device.type] == 0 or progress.step == learner.total:
                readings |= {f"held_out_{name}": value for name, value in held_out(learner).items()}
            if due or progress.step % REPORT_EVERY == 0:
                loss = _report(run, learner, progress, readings)
                share = (sum(work[:position]) + work[position] * progress.step / learner.total) / sum(work)
                left = (learner.total - progress.step) * (time.monotonic() - started) / (progress.step - first)
                message = f"{progress.step} of {learner.total} updates, loss {loss:.3f}, {left:.0f} s left"
                run.progress(0.95 * share, f"train {learner.name}", message)
            if due:
                _save(run, learners, random, progress)
    return progress.curves


def _costs(learners: Sequence[Learner]) -> list[float]:
    """Work of one update of each, in parameters of convolutions."""
    return [float(sum(p.numel() for p in learner.module.parameters())) for learner in learners]


def _report(run: Run, learner: Learner, progress: Progress, readings: Readings) -> float:
    """Report what was read; returns the loss."""
    parts = {name: float(value) for name, value in readings.items()}
    if not np.isfinite(list(parts.values())).all():
        raise MethodError(f"the {learner.name} diverged at update {progress.step}: {parts}; a smaller rate may help")
    for part, value in parts.items():
        name = f"{learner.name}_{part}"
        run.metric(name, value, progress.step)
        progress.curves.setdefault(name, []).append((progress.step, value))
    return parts["loss"]


def _modules(learners: Sequence[Learner]) -> dict[str, nn.Module]:
    return {name: module for learner in learners for name, module in learner.modules().items()}


def _save(run: Run, learners: Sequence[Learner], random: torch.Generator, progress: Progress) -> None:
    current = learners[progress.stage]
    arrays, meta = pack_training(_modules(learners), {"current": current.optimizer}, {"random": random})
    arrays |= {f"state/{name}": value.cpu().numpy() for name, value in current.state().items()}
    facts: dict[str, Any] = {"stage": progress.stage, "step": progress.step, "curves": progress.curves}
    run.save_state(arrays, {**meta, **facts})


def _resume(run: Run, learners: Sequence[Learner], random: torch.Generator) -> Progress:
    state = run.load_state()
    if state is None:
        return Progress()
    arrays, meta = state
    current = learners[int(meta["stage"])]
    unpack_training(arrays, meta, _modules(learners), {"current": current.optimizer}, {"random": random})
    prefix = "state/"
    current.restore({name[len(prefix) :]: torch.from_numpy(a) for name, a in arrays.items() if name.startswith(prefix)})
    run.log(f"continues after update {meta['step']} of the {current.name}")
    return Progress(int(meta["stage"]), int(meta["step"]), meta["curves"])
