"""Training: resumable bit for bit, with metrics on a fixed held-out set from the first minute."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from models.align_uniform import losses
from models.align_uniform.schema import Config
from models.align_uniform.words import word_view
from models.core.augment import ViewPolicy, augment
from models.core.method import MethodError
from models.core.optim import SAM
from models.core.run import Run
from models.core.training import pack_training, unpack_training

View = Callable[[Tensor, torch.Generator], Tensor]
Loss = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, dict[str, Tensor]]]
REPORTS = 20
SAVE_SECONDS = 60.0
SETTLING_BATCHES = 32


@dataclass(frozen=True)
class Problem:
    """What is trained on what.

    Attributes:
        module: everything that learns.
        count: samples, N.
        view: one random view of the samples at given positions, drawn from a generator; both on the run's device.
        loss: from two views and the positions of their samples to a scalar and named parts, none of which may be
            looked at before a report: on a GPU, every look waits for all work that is queued.
        held_out: metrics of the module at the moment, by name.
        total: steps of the whole training.
    """

    module: nn.Module
    count: int
    view: View
    loss: Loss
    held_out: Callable[[], dict[str, float]]
    total: int


def policy(config: Config) -> ViewPolicy:
    """How the configuration draws views."""
    return ViewPolicy(
        size=config.image_size,
        crop_scale=config.crop_scale,
        flip=config.flip,
        jitter=config.jitter,
        jitter_probability=config.jitter_probability,
        grey=config.grey,
    )


def picture_view(images: Tensor, config: Config, device: torch.device | str) -> View:
    """Views, float32 in [0, 1], of uint8 pictures ``(N, C, H, W)``, all of which are kept on ``device``."""
    stored = images.to(device)

    def view(indices: Tensor, generator: torch.Generator) -> Tensor:
        drawn = augment(stored[indices], policy(config), generator)
        return drawn.contiguous(memory_format=torch.channels_last)

    return view


def text_view(tokens: Tensor, config: Config, device: torch.device | str) -> View:
    """Views of texts, int32 ``(N, L)``, all of which are kept on ``device``."""
    stored = tokens.to(device)
    return lambda indices, generator: word_view(stored[indices], config.crop_scale, config.word_dropout, generator)


def objective(x: Tensor, y: Tensor, config: Config) -> tuple[Tensor, dict[str, Tensor]]:
    """The weighted sum of the losses on unit rows ``(B, m)`` of two views, and its parts."""
    total = x.new_zeros(())
    parts: dict[str, Tensor] = {}
    if config.align_weight:
        value = losses.alignment(x, y, config.alpha)
        total, parts["align"] = total + config.align_weight * value, value.detach()
    if config.uniform_weight:
        if config.uniform_within == "joint":
            value = losses.joint_uniformity(x, y, config.t)
        else:
            value = (losses.uniformity(x, config.t) + losses.uniformity(y, config.t)) / 2
        total, parts["uniform"] = total + config.uniform_weight * value, value.detach()
    if config.contrastive_weight:
        value = losses.nt_xent(x, y, config.temperature)
        total, parts["contrastive"] = total + config.contrastive_weight * value, value.detach()
    return total, parts


def batches(count: int, batch_size: int, epoch: int, seed: int, device: torch.device | str = "cpu") -> list[Tensor]:
    """Indices of the batches of one epoch, the same on every device; the incomplete last one is left out."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + epoch)
    order = torch.randperm(count, generator=generator).to(device)
    return list(torch.split(order[: count // batch_size * batch_size], batch_size))


def learning_rate(config: Config, step: int, total: int) -> float:
    """The rate of ``step`` of ``total``."""
    done = step / total
    if config.schedule == "cosine":
        return config.learning_rate * (1 + math.cos(math.pi * done)) / 2
    passed = sum(done >= milestone for milestone in (0.775, 0.85, 0.925))
    return config.learning_rate * float(0.1**passed)


def make_optimizer(module: nn.Module, config: Config) -> torch.optim.Optimizer:
    """Adam, or SGD with momentum 0.9; one kernel a step on a GPU."""
    weights = list(module.parameters())
    fused = weights[0].is_cuda
    if config.optimizer == "adam":
        return torch.optim.Adam(weights, config.learning_rate, weight_decay=config.weight_decay, fused=fused)
    return torch.optim.SGD(weights, config.learning_rate, 0.9, weight_decay=config.weight_decay, fused=fused)


def fit(problem: Problem, config: Config, run: Run) -> None:
    """Train ``problem.module`` in place, from the run's resume point where there is one.

    Raises:
        MethodError: the training diverged.
        Cancelled: the user asked for it.
    """
    device = torch.device(run.device)
    module = problem.module.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    base = make_optimizer(module, config)
    optimizer = SAM(base, config.sharpness_aware, module, total_steps=problem.total)
    views = torch.Generator(device).manual_seed(run.seed)
    batch_size = min(config.batch_size, problem.count)
    per_epoch = problem.count // batch_size
    interval = max(1, problem.total // REPORTS)
    if device.type == "cpu":
        interval = min(per_epoch, interval)  # on a GPU an epoch takes a second
    step = _resume(run, module, optimizer, views)
    started, first = time.monotonic(), step
    epoch, order, saved = -1, list[Tensor](), started
    module.train()
    while step < problem.total:
        if step // per_epoch != epoch:
            epoch = step // per_epoch
            order = batches(problem.count, batch_size, epoch, run.seed, device)
        indices = order[step % per_epoch]
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(config, step, problem.total)
        first_view, second_view = problem.view(indices, views), problem.view(indices, views)
        said: list[dict[str, Tensor]] = []
        loss = optimizer.step(_closure(problem, optimizer, first_view, second_view, indices, said), len(indices))
        step += 1
        if step % interval == 0 or step == problem.total or step == first + 1:
            parts = {"loss": loss, **said[0]}
            _report(problem, run, step, parts, (step - first) / (time.monotonic() - started))
        if step < problem.total and time.monotonic() - saved >= SAVE_SECONDS:
            saved = time.monotonic()
            arrays, meta = pack_training({"module": module}, {"optimizer": optimizer}, {"views": views})
            run.save_state(arrays, {**meta, "step": step})


def _closure(
    problem: Problem, optimizer: SAM, first: Tensor, second: Tensor, indices: Tensor, said: list[dict[str, Tensor]]
) -> Callable[..., Tensor]:
    """Loss and gradient of a batch, or of some rows of it; the named parts of every pass go to ``said``."""

    def closure(rows: slice = slice(None)) -> Tensor:
        loss, parts = problem.loss(first[rows], second[rows], indices[rows])
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        said.append(parts)
        return loss.detach()

    return closure


def settle_batch_norms(problem: Problem, config: Config, run: Run) -> None:
    """Replace the batch norms' running averages by those of the final weights over 32 batches of views.

    Running averages lag behind by some tens of steps, which is all of a short training.
    """
    batch_size = min(config.batch_size, problem.count)
    views = torch.Generator(run.device).manual_seed(run.seed)

    def drawn() -> Iterator[Tensor]:
        for epoch in range(SETTLING_BATCHES):
            for indices in batches(problem.count, batch_size, epoch, run.seed, run.device):
                yield problem.view(indices, views)

    with torch.no_grad():
        update_bn(islice(drawn(), SETTLING_BATCHES), problem.module)


def _resume(run: Run, module: nn.Module, optimizer: torch.optim.Optimizer, views: torch.Generator) -> int:
    state = run.load_state()
    if state is None:
        return 0
    arrays, meta = state
    unpack_training(arrays, meta, {"module": module}, {"optimizer": optimizer}, {"views": views})
    run.log(f"continues after step {meta['step']}")
    return int(meta["step"])


def _report(problem: Problem, run: Run, step: int, parts: dict[str, Tensor], pace: float) -> None:
    found = torch.stack(list(parts.values())).tolist()
    values = {
        **dict(zip(parts, found, strict=True)),
        **{f"held_out_{name}": value for name, value in problem.held_out().items()},
    }
    if not np.isfinite(list(values.values())).all():
        raise MethodError(f"the training diverged at step {step}: {values}; a smaller lr may help")
    for name, value in values.items():
        run.metric(name, value, step)
    left = (problem.total - step) / pace
    shown = ", ".join(f"{name} {value:.3f}" for name, value in values.items())
    run.log(f"step {step}/{problem.total}: {shown}")
    run.progress(0.97 * step / problem.total, "train", f"step {step} of {problem.total}, {left:.0f} s left, {shown}")
