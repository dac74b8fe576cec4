"""The method's proof: the theorems on clustered data, and label noise on pictures and texts.

One :class:`Cell` is one training to the end; the epochs that the rules keep, the last and the best-on-test one are
compared within it. A second training, on all samples for as many epochs, says what the held-out ones are worth.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from models.core.classifiers import Architecture, Classifier, as_tensor, build_classifier, input_spec, logits_of
from models.core.dataset import Dataset
from models.core.early_stopping import replay, validation_split
from models.core.noise import corrupt_labels
from models.core.parts import Row, measure_parts
from models.core.run import Run
from models.core.sources import load
from models.core.supervised import Recipe, fit_classifier
from models.core.text import TextTransform
from models.core.trainer_options import EarlyStopping
from models.early_stopping.theory import descend, draw_clusters, initial_weights, linearised_distance, spectrum
from models.early_stopping.watching import Labelled, watch_training

EPOCHS, SHARE = 30, 0.1
SAMPLES = {"fashion-mnist": 10_000, "digits": 8_000, "package-sections": 10_000}
TITLES = {"fashion-mnist": "Fashion-MNIST", "digits": "digits", "package-sections": "package sections"}
# What an epoch is kept by; `stopped` is the method.
RULES = {
    "stopped": EarlyStopping(),
    "patient": EarlyStopping(patience=EPOCHS),
    "one_error": EarlyStopping(patience=EPOCHS, one_standard_error=True),
}
RECIPE = Recipe(
    epochs=EPOCHS, batch_size=64, learning_rate=1e-3, optimizer="adam", weight_decay=0, cosine=False,
    early_stopping=EarlyStopping(validation_share=SHARE, patience=EPOCHS),
)  # fmt: skip
EPSILONS, THEORY_STEPS = (0.1, 0.5), (10, 30, 100, 300, 1000, 3000)
LAW = (0.05, 0.1, 0.2, 0.4, 0.8)


@dataclass(frozen=True)
class Cell:
    """One training: the data, the share of wrong labels, and the seed of data, noise and network."""

    data: str
    noise: float
    seed: int

    @property
    def setting(self) -> str:
        """The data in words."""
        return setting(self.data, self.noise)


SEEDS = (0, 1, 2)
ON_ALL = ("fashion-mnist", (0.0, 0.4))  # where training on all samples is compared
CELLS = tuple(
    Cell(data, noise, seed)
    for seed in SEEDS
    for data, noises in (("fashion-mnist", (0.4, 0.0, 0.2, 0.6)), ("digits", (0.4,)), ("package-sections", (0.4,)))
    for noise in noises
)


def setting(data: str, noise: float) -> str:
    """The data of a cell in words."""
    return f"{TITLES[data]}, {noise:.0%} wrong labels, N={SAMPLES[data]:,} of which {SHARE:.0%} choose the epoch"


@dataclass(frozen=True, eq=False)
class _Drawn:
    """The samples of a cell with wrong labels, the positions that are trained on and held out, and a clean test set."""

    architecture: Architecture
    classes: int
    all: Labelled
    parts: list[Tensor]
    test: Labelled

    def part(self, number: int) -> Labelled:
        """The training samples (0) or the held-out ones (1)."""
        rows, truth = self.parts[number], self.all.truth
        assert truth is not None
        return Labelled(self.all.inputs[rows], self.all.labels[rows], truth[rows])


def _draw(cell: Cell) -> _Drawn:
    clean, test = load(cell.data, "train"), load(cell.data, "test")
    clean = clean.select(np.random.default_rng(cell.seed).permutation(len(clean))[: SAMPLES[cell.data]])
    classes = len(clean.class_names)
    truth = clean.require_labels()
    labels = corrupt_labels(truth, classes, kind="uniform", rate=cell.noise, seed=cell.seed)
    parts = [torch.from_numpy(part) for part in validation_split(clean, SHARE, cell.seed)]
    inputs, held = _tensors(clean, test, cell.seed)
    return _Drawn(
        "mlp" if clean.kind == "text" else "small-cnn", classes,
        Labelled(inputs, torch.from_numpy(labels), torch.from_numpy(truth)), parts,
        Labelled(held, torch.from_numpy(test.require_labels())),
    )  # fmt: skip


def _tensors(train: Dataset, test: Dataset, seed: int) -> tuple[Tensor, Tensor]:
    if train.kind == "text":
        transform = TextTransform.fit(train.texts(), seed)
        return torch.from_numpy(transform.vectors(train.texts())), torch.from_numpy(transform.vectors(test.texts()))
    spec = input_spec(train, 28)
    return as_tensor(train, spec), as_tensor(test, spec)


def measure_cell(cell: Cell, run: Run) -> tuple[Row, list[Row]]:
    """Accuracies on clean test samples of the rules' epochs, the last and the best one, and the whole curve.

    Columns ``all_*`` are accuracies after training on all samples, the held-out ones too, for as many epochs; only
    in the cells of :data:`ON_ALL`.

    Raises:
        DataUnavailableError: the data cannot be had.
    """
    data = _draw(cell)
    trainings = {"watched": _watched}
    if cell.data == ON_ALL[0] and cell.noise in ON_ALL[1]:
        trainings["on all samples"] = _on_all
    train = list(trainings.values())
    found = measure_parts(run, list(trainings), lambda number, part: {"curve": train[number](data, cell.seed, part)})
    curve, alternative = found[0]["curve"], found[-1]["curve"] if len(found) > 1 else None
    held = [row["validation_accuracy"] for row in curve]
    epochs = {name: replay(options, held, len(data.parts[1])) for name, options in RULES.items()}
    stopped, last = curve[epochs["stopped"] - 1], curve[-1]
    best = max(curve, key=lambda row: row["test"])
    row: Row = {
        "data": cell.data, "noise": cell.noise, "seed": cell.seed,
        "best_epoch": best["epoch"], "best": best["test"], "last": last["test"],
        "all_last": alternative[-1]["test"] if alternative else None,
    }  # fmt: skip
    for name, epoch in epochs.items():
        row |= {f"{name}_epoch": epoch, name: curve[epoch - 1]["test"]}
        row[f"all_{name}"] = alternative[epoch - 1]["test"] if alternative else None
    for name in ("fit_clean", "fit_corrupt", "train_accuracy", "validation_accuracy", "relative_distance"):
        row |= {f"{name}_stopped": stopped.get(name), f"{name}_last": last.get(name)}
    return row, curve


def _watched(data: _Drawn, seed: int, run: Run) -> list[Row]:
    """The curve of a training on the samples that are not held out."""
    _, facts = watch_training(
        lambda: build_classifier(data.architecture, data.part(0).inputs, data.classes), data.part(0), data.part(1),
        RECIPE, run, seed=seed, test=data.test,
    )  # fmt: skip
    curve: list[Row] = facts["curve"]
    return curve


def _on_all(data: _Drawn, seed: int, run: Run) -> list[Row]:
    """The curve of a training on all samples; the rate is constant, so a shorter one is its beginning."""

    def observe(network: Classifier) -> dict[str, float]:
        return {"test": float((logits_of(network, data.test.inputs).argmax(1) == data.test.labels).double().mean())}

    fitted = fit_classifier(
        lambda: build_classifier(data.architecture, data.all.inputs, data.classes), data.all.inputs, data.all.labels,
        replace(RECIPE, early_stopping=None), run, seed=seed, observe=observe,
    )  # fmt: skip
    return fitted.curve


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
