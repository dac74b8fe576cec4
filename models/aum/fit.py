"""The one training loop: stochastic gradient descent that can record margins and continue after a kill."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F

from models.aum.network import Classifier
from models.aum.stages import Stages
from models.core.classifiers import logits_of
from models.core.devices import pick_device
from models.core.early_stopping import EarlyStopper
from models.core.margins import Margins
from models.core.optim import SAM
from models.core.supervised import shift_and_mirror
from models.core.trainer_options import EarlyStopping, SharpnessAware
from models.core.training import Parts, Resumable, pack_training, unpack_training

_SHIFT = 4  # pixels, at most, of augmentation


def derive_seed(seed: int, *path: int) -> int:
    """A seed of its own for each part of a run."""
    return int(np.random.SeedSequence((seed, *path)).generate_state(1)[0])


@dataclass(frozen=True)
class Schedule:
    """How a network is trained: SGD with Nesterov momentum 0.9.

    ``decay`` divides the learning rate by ten after 50% and 75% of the epochs; without it the rate is constant, as
    it must be while margins are counted.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    augment: bool = False
    decay: bool = False
    sharpness_aware: SharpnessAware = field(default_factory=SharpnessAware)

    def rate(self, epoch: int) -> float:
        """Learning rate of a 0-based epoch."""
        drops = sum(2 * epoch >= self.epochs * part for part in (1, 1.5)) if self.decay else 0
        return float(self.learning_rate * 10.0**-drops)


def ordinary_schedule(counting: Schedule) -> Schedule:
    """Training of a classifier, as opposed to counting margins: twice the epochs, decaying, as in the paper."""
    return replace(counting, epochs=2 * counting.epochs, decay=True)


class Watch:
    """Early stopping of one training; filled by :func:`fit`.

    Args:
        inputs: ``(V, ...)`` held-out samples, none where the rule needs none. targets: int64 ``(V,)``.

    Attributes:
        stopper: the curve, and the epoch whose weights the network has.
        last: the weights after the last trained epoch.
    """

    stopper: EarlyStopper
    last: dict[str, torch.Tensor]

    def __init__(self, options: EarlyStopping, inputs: torch.Tensor, targets: torch.Tensor) -> None:
        self.options, self.inputs, self.targets = options, inputs, targets

    def begin(self, network: Classifier) -> None:
        """Take the untrained network as the start."""
        self.stopper = EarlyStopper(self.options, network, len(self.targets))

    def update(self, network: Classifier, training: torch.Tensor) -> bool:
        """Measure what the rule needs after an epoch; whether to stop."""
        accuracy, predictions = None, None
        if len(self.targets):
            accuracy = float((logits_of(network, self.inputs).argmax(dim=1) == self.targets).double().mean())
        if self.options.rule == "label-wave":
            predictions = logits_of(network, training).argmax(dim=1)
        return self.stopper.update(accuracy=accuracy, predictions=predictions)

    def end(self, network: Classifier) -> None:
        """Put the chosen epoch's weights into the network."""
        self.last = {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}
        self.stopper.restore()


def fit(
    stages: Stages,
    name: str,
    build: Callable[[], Classifier],
    inputs: torch.Tensor,
    targets: torch.Tensor,
    schedule: Schedule,
    *,
    seed: int,
    margins: Margins | None = None,
    skip_epochs: int = 0,
    watch: Watch | None = None,
) -> Classifier:
    """Train one network; every sample is seen once an epoch. The same seed gives the same network, killed or not.

    Args:
        name: the stage of ``stages`` that this training is.
        build: makes the untrained network.
        inputs: ``(N, ...)`` as the network takes them. targets: int64 ``(N,)``.
        margins: filled from the logits of each training pass after the first ``skip_epochs`` epochs; those are of
            whole batches at the unperturbed weights, so that ``schedule.sharpness_aware.m`` is not for them.
        watch: stops the training early and chooses its weights.

    Raises:
        Cancelled: the user asked for it.
        NonFiniteLogitsError: training diverged.
    """
    device = pick_device(stages.run.device)
    inputs, targets = inputs.to(device), targets.to(device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build().to(device)
        if watch is not None:
            watch.begin(network)
        optimizer = _optimizer(network, schedule, len(targets))
        order = torch.Generator().manual_seed(seed)
        parts = _resumable(network, optimizer, order, margins, watch)
        for epoch in range(_resume(stages, name, parts), schedule.epochs):
            optimizer.param_groups[0]["lr"] = schedule.rate(epoch)
            recording = margins if epoch >= skip_epochs else None
            _epoch(stages, name, network, optimizer, inputs, targets, schedule, order, epoch, recording)
            if watch is not None and watch.update(network, inputs):
                break
            if epoch + 1 < schedule.epochs:
                arrays, packed = pack_training(*parts)
                stages.save(name, arrays, {"training": packed, "epoch": epoch + 1})
        if watch is not None:
            watch.end(network)
    return network.eval()


def _optimizer(network: Classifier, schedule: Schedule, samples: int) -> SAM:
    base = torch.optim.SGD(
        network.parameters(), lr=schedule.learning_rate, momentum=0.9, nesterov=True,
        weight_decay=schedule.weight_decay, foreach=True,
    )  # fmt: skip
    steps = schedule.epochs * len(batch_sizes(samples, schedule.batch_size))
    return SAM(base, schedule.sharpness_aware, network, total_steps=steps)


def _resumable(
    network: Classifier, optimizer: SAM, order: torch.Generator, margins: Margins | None, watch: Watch | None
) -> Parts:
    """All that changes while the network learns."""
    others: dict[str, Resumable] = {} if watch is None else {"stopping": watch.stopper}
    if margins is not None:
        others["margins"] = margins
    return {"network": network}, {"optimizer": optimizer}, {"order": order}, others


def _resume(stages: Stages, name: str, parts: Parts) -> int:
    """Put the resume point into ``parts`` where there is one; the first epoch to train."""
    resumed = stages.resume_point(name)
    if resumed is None:
        return 0
    arrays, facts = resumed
    unpack_training(arrays, facts["training"], *parts)
    return int(facts["epoch"])


def _epoch(
    stages: Stages,
    name: str,
    network: Classifier,
    optimizer: SAM,
    inputs: torch.Tensor,
    targets: torch.Tensor,
    schedule: Schedule,
    order: torch.Generator,
    epoch: int,
    margins: Margins | None,
) -> None:
    """One pass over all samples."""
    network.train()
    losses = torch.zeros((), device=inputs.device)
    seen, message = 0, f"epoch {epoch + 1} of {schedule.epochs}"
    for indices in _batches(len(targets), schedule.batch_size, order):
        stages.advance(name, (epoch + seen / len(targets)) / schedule.epochs, message)
        chosen = indices.to(inputs.device)
        batch, labels = inputs[chosen], targets[chosen]
        if schedule.augment and batch.ndim == 4:
            batch = shift_and_mirror(batch, _SHIFT, order)
        passes: list[torch.Tensor] = []
        closure = partial(_backward, network, optimizer, batch, labels, passes)
        loss = optimizer.step(closure, samples=len(labels))
        if margins is not None:
            margins.update(passes[0], labels, chosen, epoch)
        losses += loss * len(indices)
        seen += len(indices)
    if margins is not None:
        margins.check_finite()
    stages.run.metric(f"{name}/loss", float(losses) / len(targets), epoch + 1)


def _backward(
    network: Classifier,
    optimizer: SAM,
    batch: torch.Tensor,
    labels: torch.Tensor,
    passes: list[torch.Tensor],
    rows: slice = slice(None),
) -> torch.Tensor:
    """One pass of a step; its logits are appended to ``passes``."""
    optimizer.zero_grad()
    logits = network(batch[rows])
    loss = F.cross_entropy(logits, labels[rows])
    loss.backward()  # type: ignore[no-untyped-call]
    passes.append(logits.detach())
    return loss.detach()


def batch_sizes(samples: int, size: int) -> list[int]:
    """Sizes of the batches of an epoch; a last batch of one joins the one before, as batch norm needs two."""
    full, rest = divmod(samples, size)
    sizes = [size] * full + ([rest] if rest else [])
    if len(sizes) > 1 and sizes[-1] == 1:
        sizes[-2:] = [sizes[-2] + 1]
    return sizes


def _batches(samples: int, size: int, order: torch.Generator) -> Iterator[torch.Tensor]:
    """A random partition of all positions."""
    return iter(torch.split(torch.randperm(samples, generator=order), batch_sizes(samples, size)))
