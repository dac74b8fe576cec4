"""Training of a classifier with sharpness-aware minimization and early stopping; resumable bit for bit."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from models.core.classifiers import Classifier, logits_of
from models.core.devices import pick_device
from models.core.early_stopping import EarlyStopper
from models.core.method import MethodError
from models.core.optim import SAM
from models.core.parts import Row
from models.core.run import Run
from models.core.trainer_options import EarlyStopping, SharpnessAware
from models.core.training import Parts, pack_training, unpack_training


class DivergedError(MethodError):
    """The loss was NaN or infinite."""


WATCHED = ("loss", "validation_accuracy", "relative_distance", "changed")


@dataclass(frozen=True)
class Recipe:
    """How a classifier is trained.

    Attributes:
        optimizer: ``gd`` takes the whole data set as one batch and no momentum.
        cosine: the rate falls to zero along a half cosine; otherwise it is constant.
        shift: pictures are moved by up to this many pixels and mirrored at random; 0 is no augmentation.
        clip_norm: largest global gradient norm, or None.
    """

    epochs: int
    batch_size: int = 128
    learning_rate: float = 0.1
    optimizer: Literal["sgd", "adam", "gd"] = "sgd"
    weight_decay: float = 5e-4
    cosine: bool = True
    shift: int = 0
    clip_norm: float | None = None
    sharpness_aware: SharpnessAware = field(default_factory=SharpnessAware)
    early_stopping: EarlyStopping | None = None


@dataclass(frozen=True, eq=False)
class Fitted:
    """What a training gave.

    Attributes:
        network: in evaluation mode, with the weights of epoch ``epoch`` (1-based).
        curve: a row an epoch: ``epoch``, ``loss`` (first passes), what was watched and observed.
        last: the weights after the last trained epoch.
        perturbed_steps: optimiser steps that were sharpness-aware.
    """

    network: Classifier
    epoch: int
    curve: list[Row]
    last: dict[str, Tensor]
    steps: int
    perturbed_steps: int
    stopped_at: int | None


def fit_classifier(
    build: Callable[[], Classifier],
    inputs: Tensor,
    labels: Tensor,
    recipe: Recipe,
    run: Run,
    *,
    seed: int,
    validation: tuple[Tensor, Tensor] | None = None,
    observe: Callable[[Classifier], dict[str, float]] | None = None,
) -> Fitted:
    """Train one network; the same seed gives the same weights, killed and resumed or not.

    Args:
        build: makes the untrained network.
        inputs: ``(N, ...)``. labels: int64 ``(N,)``.
        validation: held-out inputs and labels; needed by the rule ``noisy-validation``.
        observe: measured after every epoch and put into the curve.

    Raises:
        DivergedError: the training diverged.
        Cancelled: the user asked for it.
    """
    device = pick_device(run.device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        training = _Training(network, recipe, len(labels), seed, 0 if validation is None else len(validation[1]))
        training.resume(run)
        inputs, labels = inputs.to(device), labels.to(device)
        while not training.finished:
            loss = training.epoch(inputs, labels, lambda done: _report(run, training, done))
            if not math.isfinite(loss):
                raise DivergedError(
                    f"training diverged in epoch {len(training.curve) + 1}: lower learning_rate or sharpness_aware.rho"
                )
            training.watch(loss, inputs, validation, observe)
            for name in WATCHED:
                value = training.curve[-1].get(name)
                if value is not None:
                    run.metric(name, float(value), len(training.curve))
            training.save(run)
    return training.result()


def _report(run: Run, training: _Training, done: float) -> None:
    number, epochs = len(training.curve), training.recipe.epochs
    run.progress((number + done) / epochs, "train", f"epoch {number + 1} of at most {epochs}")


class _Training:
    """A network, its optimiser, its generator and its early stopping."""

    def __init__(self, network: Classifier, recipe: Recipe, samples: int, seed: int, held_out: int) -> None:
        self.network, self.recipe = network, recipe
        self.batch = samples if recipe.optimizer == "gd" else min(recipe.batch_size, samples)
        self.per_epoch = max(1, round(samples / self.batch))
        parameters = network.parameters()
        if recipe.optimizer == "adam":
            base: torch.optim.Optimizer = torch.optim.Adam(
                parameters, recipe.learning_rate, weight_decay=recipe.weight_decay
            )
        else:
            momentum = 0.9 if recipe.optimizer == "sgd" else 0.0
            base = torch.optim.SGD(
                parameters, recipe.learning_rate, momentum, weight_decay=recipe.weight_decay, nesterov=momentum > 0
            )
        steps = self.per_epoch * recipe.epochs
        self.optimizer = SAM(base, recipe.sharpness_aware, network, total_steps=steps, clip_norm=recipe.clip_norm)
        self.order = torch.Generator().manual_seed(seed)
        stopping = recipe.early_stopping
        self.stopper = None if stopping is None else EarlyStopper(stopping, network, held_out)
        self.curve: list[Row] = []
        self.stopped = False

    @property
    def finished(self) -> bool:
        return self.stopped or len(self.curve) >= self.recipe.epochs

    def epoch(self, inputs: Tensor, labels: Tensor, report: Callable[[float], None]) -> float:
        """One pass over all samples; the mean loss."""
        self.network.train()
        total, seen = torch.zeros((), device=inputs.device), 0
        for number, chosen in enumerate(self._batches(len(labels), inputs.device)):
            report(number / self.per_epoch)
            if self.recipe.cosine:
                done = (len(self.curve) + number / self.per_epoch) / self.recipe.epochs
                rate = self.recipe.learning_rate * (1 + math.cos(math.pi * min(1.0, done))) / 2
                self.optimizer.param_groups[0]["lr"] = rate
            batch, targets = inputs[chosen], labels[chosen]
            if self.recipe.shift and batch.ndim == 4:
                batch = shift_and_mirror(batch, self.recipe.shift, self.order)
            loss = self.optimizer.step(self._closure(batch, targets), samples=len(targets))
            total += loss * len(targets)
            seen += len(targets)
        return float(total) / seen

    def _closure(self, batch: Tensor, targets: Tensor) -> Callable[..., Tensor]:
        def closure(rows: slice = slice(None)) -> Tensor:
            self.optimizer.zero_grad()
            loss = F.cross_entropy(self.network(batch[rows]), targets[rows])
            loss.backward()  # type: ignore[no-untyped-call]
            return loss.detach()

        return closure

    def _batches(self, samples: int, device: torch.device) -> Iterator[Tensor]:
        """A random partition; a rest of less than half a batch joins the last one."""
        order = torch.randperm(samples, generator=self.order).to(device)
        for number in range(self.per_epoch):
            last = number == self.per_epoch - 1
            yield order[number * self.batch :] if last else order[number * self.batch : (number + 1) * self.batch]

    def watch(
        self,
        loss: float,
        inputs: Tensor,
        validation: tuple[Tensor, Tensor] | None,
        observe: Callable[[Classifier], dict[str, float]] | None,
    ) -> None:
        """Measure what the options need after an epoch."""
        row: Row = {"epoch": len(self.curve) + 1, "loss": loss}
        if self.stopper is not None:
            accuracy = None
            if validation is not None:
                accuracy = float((logits_of(self.network, validation[0]).argmax(1) == validation[1]).double().mean())
            wave = self.stopper.options.rule == "label-wave"
            predictions = logits_of(self.network, inputs).argmax(1) if wave else None
            self.stopped = self.stopper.update(accuracy=accuracy, predictions=predictions)
            row |= self.stopper.curve[-1]
        if observe is not None:
            row |= observe(self.network)
        self.curve.append(row)

    def save(self, run: Run) -> None:
        """Write the resume point."""
        arrays, packed = pack_training(*self._parts())
        run.save_state(arrays, {"training": packed, "curve": self.curve, "stopped": self.stopped})

    def resume(self, run: Run) -> None:
        """Go on from the resume point, where there is one."""
        state = run.load_state()
        if state is None:
            return
        arrays, meta = state
        unpack_training(arrays, meta["training"], *self._parts())
        self.curve, self.stopped = [dict(row) for row in meta["curve"]], meta["stopped"]

    def _parts(self) -> Parts:
        others = {} if self.stopper is None else {"stopping": self.stopper}
        return {"network": self.network}, {"optimizer": self.optimizer}, {"order": self.order}, others

    def result(self) -> Fitted:
        """The network with the weights to keep."""
        last = {name: tensor.detach().cpu().clone() for name, tensor in self.network.state_dict().items()}
        epoch, stopped_at = len(self.curve), None
        if self.stopper is not None:
            epoch, stopped_at = self.stopper.restore(), self.stopper.stopped_at
        steps, perturbed = self.per_epoch * len(self.curve), self.optimizer.perturbed_steps
        return Fitted(self.network.eval(), epoch, self.curve, last, steps, perturbed, stopped_at)


def shift_and_mirror(batch: Tensor, pixels: int, generator: torch.Generator) -> Tensor:
    """Random shifts by up to ``pixels``, filled with zeros, and random mirror images; ``(B, C, H, W)``."""
    count, _, height, width = batch.shape
    padded = F.pad(batch, (pixels,) * 4)
    top, left = torch.randint(0, 2 * pixels + 1, (2, count, 1), generator=generator).to(batch.device)
    mirrored = torch.randint(0, 2, (count, 1), generator=generator).to(batch.device).bool()
    across = torch.arange(width, device=batch.device)
    rows = top + torch.arange(height, device=batch.device)
    columns = left + torch.where(mirrored, across.flip(0), across)
    sample = torch.arange(count, device=batch.device)[:, None, None]
    return padded[sample, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
