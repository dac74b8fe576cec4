"""Many perceptrons trained at once, each on data, labels and with options of its own: the proof's trainings.

A single small network leaves a GPU idle between kernels; here every kernel works on all networks. One member takes
the steps of :class:`models.core.optim.SAM` around SGD with Nesterov momentum, to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call, grad_and_value, stack_module_state, vmap

from models.core.classifiers import Classifier

Weights = dict[str, Tensor]
_WARM_UP = 3  # steps before a CUDA graph is captured: libraries allocate in their first calls
_CHUNK = 1000


@dataclass(frozen=True)
class Steps:
    """What is particular to the steps of one member.

    Attributes:
        rho: radius of the perturbation; 0 is SGD.
        random: the perturbation has a random direction instead of the gradient's.
        smoothing: share of the target that is spread evenly over the classes (Szegedy et al., CVPR 2016).
        mixup: parameter of the Beta distribution of the mixing shares (Zhang et al., ICLR 2018), or 0.
        average: decay a step of the moving average of the weights that is kept instead of them, or 0.
    """

    rho: float = 0.0
    random: bool = False
    smoothing: float = 0.0
    mixup: float = 0.0
    average: float = 0.0


@dataclass(frozen=True, eq=False)
class Member:
    """An untrained network, its inputs ``(N, ...)``, labels int64 ``(N,)`` and the seed of its batches."""

    network: Classifier
    inputs: Tensor
    labels: Tensor
    seed: int
    steps: Steps


@dataclass(frozen=True)
class Schedule:
    """What all members share; ``m`` samples share a perturbation, all of a batch where it is None."""

    epochs: int
    batch_size: int = 100
    learning_rate: float = 0.05
    weight_decay: float = 5e-4
    momentum: float = 0.9
    m: int | None = None


class Ensemble:
    """Networks of one shape, without batch norm or dropout, that take their steps together.

    Args:
        members: all with the same number of samples, a multiple of the batch size.

    Raises:
        ValueError: the batches do not divide the samples.
    """

    def __init__(self, members: Sequence[Member], schedule: Schedule, device: torch.device) -> None:
        samples = len(members[0].labels)
        if samples % schedule.batch_size:
            raise ValueError(f"{samples} samples are no whole number of batches of {schedule.batch_size}")
        self.members, self.schedule, self.device = members, schedule, device
        self.skeleton = members[0].network
        weights, buffers = stack_module_state([member.network for member in members])
        self.weights: Weights = {name: weight.detach().to(device).clone() for name, weight in weights.items()}
        self.buffers = {name: buffer.to(device) for name, buffer in buffers.items()}
        self.velocity = {name: torch.zeros_like(weight) for name, weight in self.weights.items()}
        self.averages = {name: weight.clone() for name, weight in self.weights.items()}
        self.inputs = torch.stack([member.inputs for member in members]).to(device)
        self.labels = torch.stack([member.labels for member in members]).to(device)
        options = [member.steps for member in members]
        self.rho, self.smoothing, self.decay = (
            torch.tensor([getattr(steps, name) for steps in options], device=device)
            for name in ("rho", "smoothing", "average")
        )
        self.random = torch.tensor([steps.random for steps in options], device=device)
        self.orders = [torch.Generator().manual_seed(member.seed) for member in members]
        self.perturbed = any(steps.rho > 0 for steps in options)
        self.mixed = any(steps.mixup > 0 for steps in options)
        self.averaged = any(steps.average > 0 for steps in options)
        count, per_epoch = len(members), samples // schedule.batch_size
        self.mixing = torch.stack([_mixing(member, per_epoch * schedule.epochs) for member in members], 1).to(device)
        # What changes from step to step lives in these tensors, so that a step can be replayed as a CUDA graph.
        self.rows = torch.zeros(count, schedule.batch_size, dtype=torch.int64, device=device)
        self.share = torch.ones(count, device=device)
        self.rate = torch.zeros((), device=device)
        self.done, self.per_epoch = 0, per_epoch
        self._graph: torch.cuda.CUDAGraph | None = None
        self._gradients = vmap(grad_and_value(self._loss))

    def epoch(self) -> None:
        """One pass over the samples of every member."""
        orders = torch.stack([torch.randperm(self.labels.shape[1], generator=order) for order in self.orders])
        total = self.per_epoch * self.schedule.epochs
        for rows in torch.split(orders.to(self.device), self.schedule.batch_size, dim=1):
            self.rows.copy_(rows)
            self.share.copy_(self.mixing[self.done])
            self.rate.fill_(self.schedule.learning_rate * (1 + math.cos(math.pi * self.done / total)) / 2)
            self._advance()
            self.done += 1

    def _advance(self) -> None:
        if self.device.type != "cuda":
            self._step()
        elif self.done < _WARM_UP:
            beside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            beside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(beside):
                self._step()
            torch.cuda.current_stream().wait_stream(beside)
        else:
            if self._graph is None:
                self._graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(self._graph):
                    self._step()
            self._graph.replay()

    def _loss(self, weights: Weights, buffers: Weights, inputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(self._logits(weights, buffers, inputs), targets)

    def _logits(self, weights: Weights, buffers: Weights, inputs: Tensor) -> Tensor:
        logits: Tensor = functional_call(self.skeleton, (weights, buffers), (inputs,))
        return logits

    def _batch(self) -> tuple[Tensor, Tensor]:
        """Inputs float32 ``(E, B, ...)`` and targets ``(E, B, C)``, mixed with a neighbour in the random order."""
        members = torch.arange(len(self.rows), device=self.device)[:, None]
        inputs = self.inputs[members, self.rows].float()
        classes = next(reversed(self.weights.values())).shape[-1]
        spread = self.smoothing[:, None, None]
        targets = (1 - spread) * F.one_hot(self.labels[members, self.rows], classes) + spread / classes
        if self.mixed:
            share = self.share.view(-1, 1, *(1 for _ in inputs.shape[2:]))
            inputs = share * inputs + (1 - share) * inputs.roll(1, 1)
            share = self.share[:, None, None]
            targets = share * targets + (1 - share) * targets.roll(1, 1)
        return inputs, targets

    def _step(self) -> None:
        inputs, targets = self._batch()
        part = self.schedule.m or self.schedule.batch_size
        total: Weights = {}
        for rows, wanted in zip(torch.split(inputs, part, 1), torch.split(targets, part, 1), strict=True):
            gradients = self._sharp(rows, wanted)
            share = rows.shape[1] / inputs.shape[1]
            total = {name: share * g + total[name] if total else share * g for name, g in gradients.items()}
        momentum = self.schedule.momentum
        for name, weight in self.weights.items():
            gradient = total[name] + self.schedule.weight_decay * weight
            velocity = self.velocity[name].mul_(momentum).add_(gradient)
            weight.sub_(self.rate * (gradient + momentum * velocity))
            if self.averaged:
                self.averages[name].lerp_(weight, 1 - _beside(self.decay, weight))

    def _sharp(self, inputs: Tensor, targets: Tensor) -> Weights:
        """The gradients at the perturbed weights."""
        gradients: Weights = self._gradients(self.weights, self.buffers, inputs, targets)[0]
        if not self.perturbed:
            return gradients
        directions = {
            name: torch.where(_beside(self.random, g), torch.randn_like(g), g) for name, g in gradients.items()
        }
        norm = torch.stack([d.flatten(1).square().sum(1) for d in directions.values()]).sum(0).sqrt()
        scale = self.rho / norm.clamp_min(1e-30)
        moved = {name: weight + _beside(scale, weight) * directions[name] for name, weight in self.weights.items()}
        sharp: Weights = self._gradients(moved, self.buffers, inputs, targets)[0]
        return sharp

    def kept(self) -> Weights:
        """The weights that are judged: each member's own or their moving average, ``(E, ...)``."""
        return {
            name: torch.where(_beside(self.decay > 0, weight), self.averages[name], weight)
            for name, weight in self.weights.items()
        }

    @torch.no_grad()
    def accuracies(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Share of right predictions of every member on the same samples, float64 ``(E,)`` on the CPU."""
        weights = self.kept()
        right = torch.zeros(len(self.members), dtype=torch.float64, device=self.device)
        outputs = vmap(self._logits, in_dims=(0, 0, None))
        for rows, wanted in zip(torch.split(inputs, _CHUNK), torch.split(labels, _CHUNK), strict=True):
            predicted = outputs(weights, self.buffers, rows.to(self.device)).argmax(2)
            right += (predicted == wanted.to(self.device)).sum(1)
        return (right / len(labels)).cpu()

    def networks(self) -> list[Classifier]:
        """Every member's network with the weights that are judged, on the ensemble's device."""
        weights = self.kept()
        for index, member in enumerate(self.members):
            member.network.to(self.device).load_state_dict({n: w[index] for n, w in weights.items()}, strict=False)
            member.network.eval()
        return [member.network for member in self.members]


def _beside(values: Tensor, weights: Tensor) -> Tensor:
    """A value a member, shaped to be broadcast over its weights."""
    return values.view(-1, *(1 for _ in weights.shape[1:]))


def _mixing(member: Member, steps: int) -> Tensor:
    """Share of the sample itself in every step, float32 ``(steps,)``."""
    if not member.steps.mixup:
        return torch.ones(steps)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(member.seed)
        alpha = torch.tensor(member.steps.mixup)
        return torch.distributions.Beta(alpha, alpha).sample((steps,))
