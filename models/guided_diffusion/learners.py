"""The three networks that a training makes, each with its optimiser and loss: denoiser, classifier, judge."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.core.devices import autocast
from models.core.optim import SAM
from models.core.trainer_options import SharpnessAware
from models.guided_diffusion.judge import Judge
from models.guided_diffusion.network import NoisyClassifier, UNet
from models.guided_diffusion.process import Process
from models.guided_diffusion.schema import Config
from models.guided_diffusion.timesteps import LossSecondMomentSteps, UniformSteps

Parts = dict[str, float]
Readings = dict[str, float | Tensor]
"""Scalars of one update; tensors stay on the device until somebody reads them, so that updates queue up there."""


class Learner(ABC):
    """One network in training.

    Attributes:
        name: of the stage and of the network's tensors.
        total: updates of the whole training.
        module: what learns; ``kept`` is what samples are drawn from (an average of it, or itself).
    """

    name: str
    total: int

    def __init__(
        self,
        module: nn.Module,
        config: Config,
        process: Process,
        rate: float,
        decay: float,
        *,
        total: int,
        clip_norm: float | None = None,
        sharpness_aware: SharpnessAware | None = None,
    ) -> None:
        self.module, self.kept = module, module
        self.config, self.process, self.total = config, process, total
        self.device = next(module.parameters()).device
        fused = self.device.type == "cuda" or None
        base = torch.optim.AdamW(module.parameters(), rate, weight_decay=decay, fused=fused)
        options = sharpness_aware or SharpnessAware()
        self.optimizer = SAM(base, options, module, total_steps=total, clip_norm=clip_norm)
        self.call: Callable[..., Tensor] = torch.compile(module) if config.compile else module

    @abstractmethod
    def rate(self, step: int) -> float:
        """Learning rate of update ``step`` (from 0)."""

    @abstractmethod
    def batch(self, start: Tensor, labels: Tensor, random: torch.Generator) -> Sequence[Tensor]:
        """What the loss takes, a row a picture; all that is random is drawn here.

        Args:
            start: clean pictures ``(B, C, H, W)`` in [-1, 1].
            labels: int64 ``(B,)``.
        """

    @abstractmethod
    def loss(self, *batch: Tensor) -> tuple[Tensor, Readings]:
        """The loss of what :meth:`batch` made, and named parts of it."""

    def step(self, number: int, start: Tensor, labels: Tensor, random: torch.Generator) -> Readings:
        """Update ``number`` (from 0); returns what to report, of the first pass where there are two."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate(number)
        self.module.train()
        batch = self.batch(start, labels, random)
        reported: list[Readings] = []

        def closure(rows: slice = slice(None)) -> Tensor:
            self.optimizer.zero_grad(set_to_none=True)
            loss, parts = self.loss(*(part[rows] for part in batch))
            torch.autograd.backward(loss)
            gradients = [w.grad for w in self.module.parameters() if w.grad is not None]
            reported.append({"gradient_norm": nn.utils.get_total_norm(gradients), **parts})
            return loss.detach()

        loss = self.optimizer.step(closure, samples=len(start))
        return {"loss": loss, "learning_rate": self.rate(number), **reported[0]}

    def modules(self) -> dict[str, nn.Module]:
        """What a resume point keeps."""
        return {self.name: self.module}

    def state(self) -> dict[str, Tensor]:
        """Further tensors of a resume point."""
        return {}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take back what :meth:`state` gave; here nothing."""
        assert not state

    def network(self, *inputs: Tensor) -> Tensor:
        """Output of the module in the training's precision, float32."""
        with autocast(self.device, self.config.precision):
            return self.call(*inputs).float()

    def _noised(self, start: Tensor, t: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
        noise = torch.randn(start.shape, generator=random, device=random.device).to(start.device)
        noised = self.process.noised(start, t, noise)
        return noised.contiguous(memory_format=torch.channels_last), noise


class Denoiser(Learner):
    """The U-Net under the hybrid loss, and the moving average of its weights."""

    name = "denoiser"

    def __init__(self, module: UNet, average: UNet, config: Config, process: Process) -> None:
        super().__init__(
            module, config, process, config.learning_rate, 0.0, total=config.steps, clip_norm=config.clip_norm
        )
        self.null = module.conditioning.labels - 1
        self.average = average.requires_grad_(requires_grad=False)
        self.kept = self.average
        self.average.load_state_dict(module.state_dict())
        weighted = config.time_sampling == "loss-second-moment"
        self.steps = (LossSecondMomentSteps if weighted else UniformSteps)(len(process))

    def rate(self, step: int) -> float:
        """A linear rise, then half a cosine down to the final rate."""
        config = self.config
        if step < config.warmup:
            return config.learning_rate * (step + 1) / config.warmup
        share = (step - config.warmup) / max(1, self.total - config.warmup)
        low = config.final_rate
        return config.learning_rate * (low + (1 - low) * (1 + math.cos(math.pi * share)) / 2)

    def batch(self, start: Tensor, labels: Tensor, random: torch.Generator) -> Sequence[Tensor]:
        """Labels of which some are replaced by the null label, steps and their weights, noisy and clean pictures."""
        drawn = torch.rand(len(start), generator=random, device=random.device)
        dropped = (drawn < self.config.null_label).to(start.device)
        t, weights = (drawn.to(start.device) for drawn in self.steps.draw(len(start), random))
        x, noise = self._noised(start, t, random)
        return start, x, noise, t, weights, torch.where(dropped, self.null, labels)

    def loss(self, *batch: Tensor) -> tuple[Tensor, Readings]:
        """L_simple + L_vlb / 1000, of one step a picture; L_vlb sums T steps, so its one drawn step counts T times."""
        start, x, noise, t, weights, told = batch
        simple, bound = self.process.losses(self.network(x, t, told), start, x, t, noise)
        losses = simple + len(self.process) / 1000 * bound
        self.steps.update(t, losses.detach())
        return (weights * losses).mean(), {"mse": simple.detach().mean(), "vb": bound.detach().mean()}

    def step(self, number: int, start: Tensor, labels: Tensor, random: torch.Generator) -> Readings:
        """As the base class; then the average takes the new weights in."""
        parts = super().step(number, start, labels, random)
        decay = min(self.config.ema, (1 + number) / (10 + number))
        with torch.no_grad():
            averaged: list[Tensor] = [*self.average.parameters()]
            torch._foreach_lerp_(averaged, [*self.module.parameters()], 1 - decay)
        return parts

    def modules(self) -> dict[str, nn.Module]:
        """Both sets of weights."""
        return {self.name: self.module, "average": self.average}

    def state(self) -> dict[str, Tensor]:
        """Losses by step, where the steps are drawn by them."""
        return self.steps.state()

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take back what :meth:`state` gave."""
        self.steps.restore(state)


class Guide(Learner):
    """The classifier of noisy pictures, at uniformly drawn steps."""

    name = "classifier"

    def __init__(self, module: NoisyClassifier, config: Config, process: Process) -> None:
        super().__init__(
            module,
            config,
            process,
            config.classifier_rate,
            config.classifier_decay,
            total=config.classifier_steps,
            sharpness_aware=config.classifier_sharpness_aware,
        )

    def rate(self, step: int) -> float:
        """Linearly to zero."""
        return self.config.classifier_rate * (1 - step / self.total)

    def batch(self, start: Tensor, labels: Tensor, random: torch.Generator) -> Sequence[Tensor]:
        """Noisy pictures, their steps and labels."""
        start = shifted(start, self.config.crop, random)
        t = torch.randint(len(self.process), (len(start),), generator=random, device=random.device).to(start.device)
        x, _ = self._noised(start, t, random)
        return x, t, labels

    def loss(self, *batch: Tensor) -> tuple[Tensor, Readings]:
        """Cross entropy."""
        x, t, labels = batch
        logits = self.network(x, t)
        accuracy = (logits.detach().argmax(dim=1) == labels).float().mean()
        return F.cross_entropy(logits, labels), {"accuracy": accuracy}


class JudgeLearner(Learner):
    """The judge, on clean pictures."""

    name = "judge"
    _RATE = 2e-3

    def __init__(self, module: Judge, config: Config, process: Process) -> None:
        uncompiled = config.model_copy(update={"compile": False})
        super().__init__(module, uncompiled, process, self._RATE, 0.01, total=config.judge_steps)

    def rate(self, step: int) -> float:
        """Half a cosine to zero."""
        return self._RATE * (1 + math.cos(math.pi * step / self.total)) / 2

    def batch(self, start: Tensor, labels: Tensor, random: torch.Generator) -> Sequence[Tensor]:
        """Clean pictures and labels."""
        return start, labels

    def loss(self, *batch: Tensor) -> tuple[Tensor, Readings]:
        """Cross entropy."""
        start, labels = batch
        logits = self.network(start)
        accuracy = (logits.detach().argmax(dim=1) == labels).float().mean()
        return F.cross_entropy(logits, labels), {"accuracy": accuracy}


def shifted(pictures: Tensor, by: int, random: torch.Generator) -> Tensor:
    """Pictures moved by up to ``by`` pixels each way; what comes in repeats the border."""
    if not by:
        return pictures
    count, _, height, width = pictures.shape
    padded = F.pad(pictures, (by, by, by, by), mode="replicate")
    device = random.device
    rows, columns = (torch.randint(2 * by + 1, (count, 1), generator=random, device=device) for _ in range(2))
    rows, columns = rows + torch.arange(height, device=device), columns + torch.arange(width, device=device)
    picked = torch.arange(count, device=device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[picked, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
