"""The method's proof: label noise on Fashion-MNIST, SAM beside SGD at equal steps and at equal compute.

One :class:`Cell` is one training of the perceptron 784-256-256-10 on 5,000 pictures. Cells of one schedule and share
of wrong labels are trained as one :class:`~models.sam.ensemble.Ensemble`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from models.core.classifiers import Classifier, as_tensor, build_classifier, logits_of
from models.core.dataset import Dataset
from models.core.devices import pick_device
from models.core.inputs import ImageSpec
from models.core.noise import corrupt_labels
from models.core.parts import Row
from models.core.run import Run
from models.core.sources import load
from models.sam.curvature import hessian_product, spectrum_ends, trainable
from models.sam.ensemble import Ensemble, Member, Schedule, Steps

SAMPLES, EPOCHS, CURVATURE_ROWS, LANCZOS = 5_000, 40, 1_000, 40
SPEC = ImageSpec(height=28, width=28, channels=1)


@dataclass(frozen=True)
class Arm:
    """What is compared: the particular steps and the schedule."""

    steps: Steps = field(default_factory=Steps)
    schedule: Schedule = field(default_factory=lambda: Schedule(EPOCHS))

    @property
    def perturbed_steps(self) -> int:
        """Optimiser steps with a perturbation."""
        return self.optimiser_steps if self.steps.rho else 0

    @property
    def optimiser_steps(self) -> int:
        """Optimiser steps of the training."""
        return self.schedule.epochs * SAMPLES // self.schedule.batch_size


RADII = (0.05, 0.1, 0.2, 0.5)
SGD, DOUBLE, BEST, RANDOM = "SGD", "SGD, twice the epochs", "SAM, rho 0.2", "random direction, rho 0.2"
ARMS: dict[str, Arm] = {
    SGD: Arm(),
    DOUBLE: Arm(schedule=Schedule(2 * EPOCHS)),
    **{f"SAM, rho {rho:g}": Arm(Steps(rho)) for rho in RADII},
    RANDOM: Arm(Steps(0.2, random=True)),
    "SAM, rho 0.2, m 25": Arm(Steps(0.2), Schedule(EPOCHS, m=25)),
    "SAM, rho 0.2, m 10": Arm(Steps(0.2), Schedule(EPOCHS, m=10)),
    "SGD, label smoothing 0.1": Arm(Steps(smoothing=0.1)),
    "SGD, mixup 0.2": Arm(Steps(mixup=0.2)),
    "SGD, moving average 0.999": Arm(Steps(average=0.999)),
}
NOISES, SEEDS = (0.4, 0.0, 0.2, 0.6), (0, 1, 2, 3, 4)


@dataclass(frozen=True)
class Cell:
    """One training: a key of :data:`ARMS`, the share of wrong labels and the seed of data, noise and network."""

    arm: str
    noise: float
    seed: int


def setting(noise: float) -> str:
    """The data of a cell in words."""
    return f"Fashion-MNIST, {noise:.0%} wrong labels, N={SAMPLES:,}, perceptron"


CELLS = tuple(Cell(arm, noise, seed) for noise in NOISES for arm in ARMS for seed in SEEDS)


def groups(cells: Sequence[Cell]) -> list[list[Cell]]:
    """The cells that are trained together, in the order of their first ones: with and without perturbation apart."""
    found: dict[tuple[float, Schedule, bool], list[Cell]] = {}
    for cell in cells:
        arm = ARMS[cell.arm]
        found.setdefault((cell.noise, arm.schedule, arm.steps.rho > 0), []).append(cell)
    return list(found.values())


def measure_group(cells: Sequence[Cell], run: Run) -> list[Row]:
    """Accuracies on the clean test set, on the given labels and on the true labels of wrong ones; ends of the Hessian.

    Args:
        cells: of one schedule.

    Raises:
        DataUnavailableError: the data cannot be had.
    """
    clean, test = load("fashion-mnist", "train"), load("fashion-mnist", "test")
    held, answers = as_tensor(test, SPEC), torch.from_numpy(test.require_labels())
    drawn = [_draw(clean, cell) for cell in cells]
    members = [Member(_untrained(d.inputs, c.seed), d.inputs, d.labels, c.seed, ARMS[c.arm].steps)
               for c, d in zip(cells, drawn, strict=True)]  # fmt: skip
    schedule = ARMS[cells[0].arm].schedule
    ensemble = Ensemble(members, schedule, pick_device(run.device))
    curve = []
    for number in range(schedule.epochs):
        run.progress(number / schedule.epochs, "train", f"epoch {number + 1} of {schedule.epochs}")
        ensemble.epoch()
        curve.append(ensemble.accuracies(held, answers))
    tests = torch.stack(curve, 1).tolist()
    run.progress(0.9, "curvature", f"{len(cells)} networks")
    return [_row(*found) for found in zip(cells, drawn, tests, ensemble.networks(), strict=True)]


@dataclass(frozen=True, eq=False)
class _Drawn:
    """The pictures of a cell, their labels as given and the true ones."""

    inputs: Tensor
    labels: Tensor
    truth: Tensor


def _draw(clean: Dataset, cell: Cell) -> _Drawn:
    chosen = clean.select(np.random.default_rng(cell.seed).permutation(len(clean))[:SAMPLES])
    truth = chosen.require_labels()
    labels = corrupt_labels(truth, 10, kind="uniform", rate=cell.noise, seed=cell.seed)
    return _Drawn(as_tensor(chosen, SPEC), torch.from_numpy(labels), torch.from_numpy(truth))


def _untrained(inputs: Tensor, seed: int) -> Classifier:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_classifier("mlp", inputs, 10)


def _row(cell: Cell, data: _Drawn, tests: list[float], network: Classifier) -> Row:
    predicted = logits_of(network, data.inputs).argmax(1)
    wrong = data.labels != data.truth
    arm = ARMS[cell.arm]
    return {
        "arm": cell.arm, "noise": cell.noise, "seed": cell.seed, "samples": SAMPLES,
        "final": tests[-1], "best": max(tests), "best_epoch": 1 + int(np.argmax(tests)),
        "train": float((predicted == data.labels).double().mean()),
        "recovered": float((predicted == data.truth)[wrong].double().mean()) if wrong.any() else None,
        "perturbed_steps": arm.perturbed_steps, "steps": arm.optimiser_steps,
        **curvature(network, data.inputs[:CURVATURE_ROWS], data.labels[:CURVATURE_ROWS]),
    }  # fmt: skip


def curvature(network: Classifier, inputs: Tensor, labels: Tensor) -> dict[str, float]:
    """Eigenvalues of the Hessian of the mean loss on these rows: the largest, the fifth and the least."""
    parameters, device = trainable(network), network.mean.device
    product = hessian_product(parameters, F.cross_entropy(network(inputs.to(device)), labels.to(device)))
    size = sum(p.numel() for p in parameters)
    start = torch.randn(size, generator=torch.Generator().manual_seed(0)).to(device)
    ends = spectrum_ends(product, start, LANCZOS)
    return {"lambda_max": ends.largest(1), "lambda_5": ends.largest(5), "lambda_min": float(ends.values[-1])}
