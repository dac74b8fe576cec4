"""The one training loop: stochastic gradient descent that can record margins and continue after a kill."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F

from models.aum.network import Classifier
from models.aum.stages import Stages
from models.core.devices import pick_device
from models.core.margins import Margins
from models.core.training import pack_training, unpack_training

_PAD = 4  # pixels of the random crop


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

    def rate(self, epoch: int) -> float:
        """Learning rate of a 0-based epoch."""
        drops = sum(2 * epoch >= self.epochs * part for part in (1, 1.5)) if self.decay else 0
        return float(self.learning_rate * 10.0**-drops)


def ordinary_schedule(counting: Schedule) -> Schedule:
    """Training of a classifier, as opposed to counting margins: twice the epochs, decaying, as in the paper."""
    return replace(counting, epochs=2 * counting.epochs, decay=True)


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
) -> Classifier:
    """Train one network; every sample is seen once an epoch. The same seed gives the same network, killed or not.

    Args:
        name: the stage of ``stages`` that this training is.
        build: makes the untrained network.
        inputs: ``(N, ...)`` as the network takes them. targets: int64 ``(N,)``.
        margins: filled from the logits of each training pass after the first ``skip_epochs`` epochs.

    Raises:
        Cancelled: the user asked for it.
        NonFiniteLogitsError: training diverged.
    """
    device = pick_device(stages.run.device)
    inputs, targets = inputs.to(device), targets.to(device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build().to(device)
        optimizer = torch.optim.SGD(
            network.parameters(), lr=schedule.learning_rate, momentum=0.9, nesterov=True,
            weight_decay=schedule.weight_decay, foreach=True,
        )  # fmt: skip
        order = torch.Generator().manual_seed(seed)
        parts = ({"network": network}, {"optimizer": optimizer}, {"order": order})
        start = 0
        resumed = stages.resume_point(name)
        if resumed is not None:
            arrays, facts = resumed
            unpack_training(arrays, facts["training"], *parts)
            start = facts["epoch"]
            if margins is not None:
                margins.restore({k.removeprefix("margins/"): a for k, a in arrays.items() if k.startswith("margins/")})
        for epoch in range(start, schedule.epochs):
            optimizer.param_groups[0]["lr"] = schedule.rate(epoch)
            recording = margins if epoch >= skip_epochs else None
            _epoch(stages, name, network, optimizer, inputs, targets, schedule, order, epoch, recording)
            if epoch + 1 < schedule.epochs:
                arrays, training = pack_training(*parts)
                if margins is not None:
                    arrays |= {f"margins/{key}": array for key, array in margins.state().items()}
                stages.save(name, arrays, {"training": training, "epoch": epoch + 1})
    return network.eval()


def _epoch(
    stages: Stages,
    name: str,
    network: Classifier,
    optimizer: torch.optim.Optimizer,
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
            batch = crop_and_flip(batch, order)
        logits = network(batch)
        loss = F.cross_entropy(logits, labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if margins is not None:
            margins.update(logits, labels, chosen, epoch)
        losses += loss.detach() * len(indices)
        seen += len(indices)
    if margins is not None:
        margins.check_finite()
    stages.run.metric(f"{name}/loss", float(losses) / len(targets), epoch + 1)


def _batches(samples: int, size: int, order: torch.Generator) -> Iterator[torch.Tensor]:
    """A random partition of all positions; a last batch of one joins the one before, as batch norm needs two."""
    batches = list(torch.split(torch.randperm(samples, generator=order), size))
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [torch.cat(batches[-2:])]
    return iter(batches)


def crop_and_flip(batch: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Random crops after padding by four zero pixels, and random mirror images; ``(B, C, H, W)`` in and out."""
    count, _, height, width = batch.shape
    padded = F.pad(batch, (_PAD, _PAD, _PAD, _PAD))
    top, left = torch.randint(0, 2 * _PAD + 1, (2, count, 1), generator=generator).to(batch.device)
    flipped = torch.randint(0, 2, (count, 1), generator=generator).to(batch.device).bool()
    rows = top + torch.arange(height, device=batch.device)
    ascending = torch.arange(width, device=batch.device)
    columns = left + torch.where(flipped, ascending.flip(0), ascending)
    sample = torch.arange(count, device=batch.device)[:, None, None]
    return padded[sample, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


@torch.inference_mode()
def logits_of(network: Classifier, inputs: torch.Tensor, batch_size: int = 512) -> torch.Tensor:
    """Logits of all inputs with the network in evaluation mode, float32 ``(N, outputs)`` on the CPU."""
    network.eval()
    device = network.mean.device
    return torch.cat([network(batch.to(device)).float().cpu() for batch in torch.split(inputs, batch_size)])
