"""The method's proof: label noise on Fashion-MNIST, SAM beside SGD at equal steps and at equal compute.

One :class:`Cell` is one training of the perceptron 784-256-256-10 on 5,000 pictures.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from models.core.classifiers import Classifier, as_tensor, build_classifier, logits_of
from models.core.inputs import ImageSpec
from models.core.noise import corrupt_labels
from models.core.optim import SAM
from models.core.parts import Row
from models.core.run import Run
from models.core.sources import load
from models.core.supervised import Recipe, fit_classifier
from models.core.trainer_options import SharpnessAware
from models.sam.curvature import hessian_product, spectrum_ends, trainable

SAMPLES, EPOCHS, CURVATURE_ROWS, LANCZOS = 5_000, 40, 1_000, 40
SPEC = ImageSpec(height=28, width=28, channels=1)


class RandomDirection(SAM):
    """The ablation: a perturbation of the same length in a random direction."""

    def _perturbation(self) -> dict[Tensor, Tensor]:
        drawn = {weight: torch.randn_like(weight) for weight in self._trained()}
        norm = torch.nn.utils.get_total_norm(list(drawn.values()))
        return {weight: self.options.radius * noise / norm for weight, noise in drawn.items()}


def _arm(rho: float, m: int | None = None, *, epochs: int = EPOCHS, steps: type[SAM] = SAM) -> Recipe:
    options = SharpnessAware(kind="sam" if rho else "none", rho=rho or None, m=m)
    return Recipe(epochs=epochs, batch_size=100, learning_rate=0.05, sharpness_aware=options, steps=steps)


RADII = (0.05, 0.1, 0.2, 0.5)
SGD, DOUBLE, BEST = "SGD", "SGD, twice the epochs", "SAM, rho 0.2"
ARMS: dict[str, Recipe] = {
    SGD: _arm(0),
    DOUBLE: _arm(0, epochs=2 * EPOCHS),
    **{f"SAM, rho {rho:g}": _arm(rho) for rho in RADII},
    "random direction, rho 0.2": _arm(0.2, steps=RandomDirection),
    "SAM, rho 0.2, m 25": _arm(0.2, 25),
    "SAM, rho 0.2, m 10": _arm(0.2, 10),
}
FEW = (SGD, DOUBLE, "SAM, rho 0.1", BEST)


@dataclass(frozen=True)
class Cell:
    """One training: a key of :data:`ARMS`, the share of wrong labels and the seed of data, noise and network."""

    arm: str
    noise: float
    seed: int

    @property
    def setting(self) -> str:
        """The setting in words."""
        return setting(self.noise)


def setting(noise: float) -> str:
    """The data of a cell in words."""
    return f"Fashion-MNIST, {noise:.0%} wrong labels, N={SAMPLES:,}, perceptron"


CELLS = (
    *(Cell(arm, 0.4, seed) for seed in (0, 1, 2) for arm in list(ARMS)[:7]),
    *(Cell(arm, 0.4, 0) for arm in list(ARMS)[7:]),
    *(Cell(arm, noise, seed) for noise in (0.0, 0.2, 0.6) for seed in (0, 1) for arm in FEW),
    *(Cell(arm, 0.4, seed) for seed in (3, 4) for arm in list(ARMS)[:7]),
)


def measure_cell(cell: Cell, run: Run) -> Row:
    """Accuracies on the clean test set, on the given labels and on the true labels of wrong ones; ends of the Hessian.

    Raises:
        DataUnavailableError: the data cannot be had.
    """
    clean, test = load("fashion-mnist", "train"), load("fashion-mnist", "test")
    generator = np.random.default_rng(cell.seed)
    clean = clean.select(generator.permutation(len(clean))[:SAMPLES])
    truth = torch.from_numpy(clean.require_labels())
    labels = torch.from_numpy(
        corrupt_labels(clean.require_labels(), 10, kind="uniform", rate=cell.noise, seed=cell.seed)
    )
    inputs, held = as_tensor(clean, SPEC), as_tensor(test, SPEC)
    answers = torch.from_numpy(test.require_labels())

    def observe(network: Classifier) -> dict[str, float]:
        return {"test": float((logits_of(network, held).argmax(1) == answers).double().mean())}

    fitted = fit_classifier(
        lambda: build_classifier("mlp", inputs, 10), inputs, labels, ARMS[cell.arm], run,
        seed=cell.seed, observe=observe,
    )  # fmt: skip
    tests = [float(row["test"] or 0) for row in fitted.curve]
    predicted = logits_of(fitted.network, inputs).argmax(1)
    wrong = labels != truth
    return {
        "arm": cell.arm, "noise": cell.noise, "seed": cell.seed, "samples": len(labels),
        "final": tests[-1], "best": max(tests), "best_epoch": 1 + int(np.argmax(tests)),
        "train": float((predicted == labels).double().mean()),
        "recovered": float((predicted == truth)[wrong].double().mean()) if wrong.any() else None,
        "perturbed_steps": fitted.perturbed_steps, "steps": fitted.steps,
        **curvature(fitted.network, inputs[:CURVATURE_ROWS], labels[:CURVATURE_ROWS]),
    }  # fmt: skip


def curvature(network: Classifier, inputs: Tensor, labels: Tensor) -> dict[str, float]:
    """Eigenvalues of the Hessian of the mean loss on these rows: the largest, the fifth and the least."""
    parameters = trainable(network)
    product = hessian_product(parameters, F.cross_entropy(network(inputs), labels))
    start = torch.randn(sum(p.numel() for p in parameters), generator=torch.Generator().manual_seed(0))
    ends = spectrum_ends(product, start, LANCZOS)
    return {"lambda_max": ends.largest(1), "lambda_5": ends.largest(5), "lambda_min": float(ends.values[-1])}
