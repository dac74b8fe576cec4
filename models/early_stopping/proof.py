"""The method's proof: the theorems on clustered data, and label noise on Fashion-MNIST.

One :class:`Cell` is one training to the end; stopped, last and best-on-test weights are compared within it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from models.core.classifiers import as_tensor, build_classifier
from models.core.early_stopping import validation_split
from models.core.inputs import ImageSpec
from models.core.noise import corrupt_labels
from models.core.parts import Row
from models.core.run import Run
from models.core.sources import load
from models.core.supervised import Recipe
from models.core.trainer_options import EarlyStopping
from models.early_stopping.theory import descend, draw_clusters, initial_weights, linearised_distance, spectrum
from models.early_stopping.watching import Labelled, watch_training

SAMPLES, TEST, EPOCHS, SHARE = 4_000, 2_000, 30, 0.25
SPEC = ImageSpec(height=28, width=28, channels=1)
STOPPING = EarlyStopping(validation_share=SHARE, continue_to_end=True)
RECIPE = Recipe(
    epochs=EPOCHS, batch_size=64, learning_rate=1e-3, optimizer="adam", weight_decay=0, cosine=False,
    early_stopping=STOPPING,
)  # fmt: skip
EPSILONS, THEORY_STEPS = (0.1, 0.5), (10, 30, 100, 300, 1000)
LAW = (0.05, 0.1, 0.2, 0.4, 0.8)


@dataclass(frozen=True)
class Cell:
    """One training: the share of wrong labels, and the seed of data, noise and network."""

    noise: float
    seed: int


CELLS = (*(Cell(noise, seed) for seed in (0, 1, 2) for noise in (0.4, 0.2, 0.6)), Cell(0.0, 0))


def setting(noise: float) -> str:
    """The data of a cell in words."""
    return f"Fashion-MNIST, {noise:.0%} wrong labels, {SAMPLES:,} pictures of which {SHARE:.0%} choose the epoch"


def measure_cell(cell: Cell, run: Run) -> tuple[Row, list[Row]]:
    """Accuracies on clean test pictures of the stopped, the last and the best epoch, and the whole curve.

    Raises:
        DataUnavailableError: the data cannot be had.
    """
    clean, test = load("fashion-mnist", "train"), load("fashion-mnist", "test").select(range(TEST))
    clean = clean.select(np.random.default_rng(cell.seed).permutation(len(clean))[:SAMPLES])
    truth = torch.from_numpy(clean.require_labels())
    drawn = corrupt_labels(clean.require_labels(), 10, kind="uniform", rate=cell.noise, seed=cell.seed)
    inputs, labels = as_tensor(clean, SPEC), torch.from_numpy(drawn)
    parts = [torch.from_numpy(part) for part in validation_split(clean, SHARE, cell.seed)]
    training, held = (Labelled(inputs[part], labels[part], truth[part]) for part in parts)
    fitted, facts = watch_training(
        lambda: build_classifier("small-cnn", training.inputs, 10), training, held, RECIPE, run, seed=cell.seed,
        test=Labelled(as_tensor(test, SPEC), torch.from_numpy(test.require_labels())),
    )  # fmt: skip
    curve = facts["curve"]
    stopped, last = curve[fitted.epoch - 1], curve[-1]
    best = max(curve, key=lambda row: row["test"])
    row: Row = {
        "noise": cell.noise, "seed": cell.seed, "epoch": fitted.epoch, "best_epoch": best["epoch"],
        "stopped": stopped["test"], "last": last["test"], "best": best["test"],
    }  # fmt: skip
    for name in ("fit_clean", "fit_corrupt", "train_accuracy", "validation_accuracy", "relative_distance"):
        row |= {f"{name}_stopped": stopped.get(name), f"{name}_last": last.get(name)}
    return row, curve


def measure_theory(seed: int) -> list[Row]:
    """Theorem 1 on clusters of two radii (softplus, K=8, n=400, d=20, k=1000, a fifth of the labels wrong)."""
    rows: list[Row] = []
    for eps in EPSILONS:
        data = draw_clusters(400, 20, 8, eps, 0.2, seed)
        found = descend(data, 1000, THEORY_STEPS[-1], "softplus", seed, THEORY_STEPS)
        rows += [{"eps": eps, "seed": seed, **row} for row in found]
    return rows


def measure_law(seed: int) -> list[Row]:
    """Theorem 2: the shortest way to fit true and corrupted labels over the clusters' radius (n=80, k=2000)."""
    rows: list[Row] = []
    for eps in LAW:
        data = draw_clusters(80, 20, 8, eps, 0.2, seed)
        weights = initial_weights(2000, 20, seed)
        found = spectrum(data, weights, "softplus")
        rows.append(
            {
                "eps": eps,
                "seed": seed,
                "gap": found.gap,
                "noise_share": found.noise_share,
                "distance_true": linearised_distance(data, weights, data.truth, "softplus"),
                "distance_corrupt": linearised_distance(data, weights, data.labels, "softplus"),
            }
        )
    return rows


def slopes(law: list[Row]) -> dict[str, float]:
    """Slope of log distance on log radius for true and for partly wrong labels, over the means of the seeds."""

    def mean(eps: float, name: str) -> float:
        return float(np.mean([float(row[name] or 0) for row in law if row["eps"] == eps]))

    logs = np.log(LAW)
    return {
        name: float(np.polyfit(logs, np.log([mean(eps, name) for eps in LAW]), 1)[0])
        for name in ("distance_true", "distance_corrupt")
    }
