"""The method's proof: injected label noise on real data, against loss ranking and confident learning.

Every method trains the same network for the same epochs. One :class:`Cell` is one data set, noise and seed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from models.aum.features import Features, extract_features, image_tensor
from models.aum.fit import Schedule, derive_seed, fit, logits_of, ordinary_schedule
from models.aum.folds import FoldPlan, run_folds
from models.aum.network import Classifier
from models.aum.ranking import Bools, rank_samples
from models.aum.stages import Stages
from models.aum.thresholds import noise_rate, threshold_count
from models.core.dataset import Dataset
from models.core.inputs import Float64, Int64
from models.core.noise import NoiseKind, corrupt_labels
from models.core.run import LocalRun, Run
from models.core.sources import load

Row = dict[str, float | int | str | None]
SAMPLES = {"fashion-mnist": 8_000, "digits": 8_000}
NOISES: tuple[tuple[NoiseKind, float], ...] = (("uniform", 0.2), ("uniform", 0.4), ("flip", 0.2), ("flip", 0.4))
SEEDS = (0, 1, 2)
_EPOCHS, _CL_FOLDS = 8, 3
_SCHEDULE = Schedule(_EPOCHS, 64, 0.1, 1e-4)
_EARLY = Schedule(_EPOCHS, 64, 0.1, 1e-4, decay=True)
_ORDINARY = ordinary_schedule(_SCHEDULE)


@dataclass(frozen=True)
class Cell:
    """One setting of the proof and its seed."""

    data: str
    kind: NoiseKind
    rate: float
    seed: int

    @property
    def setting(self) -> str:
        """The setting in words."""
        return f"{self.data}, {self.kind} {self.rate:.0%}, N={SAMPLES[self.data]:,}"


CELLS = tuple(Cell(data, kind, rate, seed) for data in SAMPLES for kind, rate in NOISES for seed in SEEDS)


class _Trainer:
    """Trains the proof's networks, each a stage of a run of its own in the outer run's scratch folder."""

    def __init__(self, outer: Run, cell: Cell, trainings: int, report: Callable[[float, str], None]) -> None:
        folder = outer.scratch / f"{cell.data}-{cell.kind}-{cell.rate}-{cell.seed}"
        inner = LocalRun(folder, seed=cell.seed, device=outer.device, report=lambda f, stage, _: report(f, stage))
        names = [f"training {number}" for number in range(trainings)]
        self._names = iter(names)
        self.stages = Stages(inner, dict.fromkeys([*FoldPlan(2, 1, _SCHEDULE).names, *names], 1.0))

    def train(self, features: Features, labels: Int64, positions: Int64, schedule: Schedule, seed: int) -> Classifier:
        """One network on the samples at ``positions``."""
        name = next(self._names)
        chosen = torch.from_numpy(positions)
        classes = int(labels.max()) + 1
        network = fit(
            self.stages, name, lambda: features.network(classes), features.inputs[chosen],
            torch.from_numpy(labels)[chosen], schedule, seed=seed,
        )  # fmt: skip
        self.stages.finish(name, {})
        return network


def measure_cell(cell: Cell, run: Run, report: Callable[[float, str], None]) -> Row:
    """All figures of one cell.

    Detection: ``auroc``, ``ap`` (average precision), ``f1`` by the method's own flags and ``f1_k`` of as many flags
    as there are wrong labels; loss ranking (at the end of the ordinary training, and ``loss_early`` of one stopped
    after as many epochs as AUM counts) has no flags of its own. ``accuracy_*``: on clean test data after
    training on all samples, without those flagged by each method, without as many at random, and without all wrong
    labels (oracle).

    Raises:
        DataUnavailableError: the data cannot be had.
        Cancelled: the user asked for it.
    """
    clean, test = load(cell.data, "train"), load(cell.data, "test")
    chosen = np.random.default_rng(derive_seed(cell.seed, 10)).permutation(len(clean))[: SAMPLES[cell.data]]
    clean = clean.select(chosen)
    truth = clean.require_labels()
    classes = len(clean.class_names)
    labels = corrupt_labels(truth, classes, kind=cell.kind, rate=cell.rate, seed=derive_seed(cell.seed, 11))
    wrong = labels != truth
    features = extract_features(clean, "small-cnn", image_size=64, seed=cell.seed)
    trainer = _Trainer(run, cell, trainings=6 + _CL_FOLDS, report=report)

    plan = FoldPlan(2, threshold_count(len(labels), classes), _SCHEDULE)
    runs = run_folds(trainer.stages, features, labels, classes, plan, cell.seed)
    ranking = rank_samples(runs, labels, 99.0, "all")
    everything = np.arange(len(labels))
    seed = derive_seed(cell.seed, 12)
    early = trainer.train(features, labels, everything, _EARLY, seed)
    network = trainer.train(features, labels, everything, _ORDINARY, seed)
    quality, issues = _confident_learning(trainer, features, labels, cell.seed)

    at_random = _random(ranking.suspect, cell.seed)
    dropped = {"aum": ranking.suspect, "confident": issues, "random": at_random, "oracle": wrong}
    accuracy = {"all": _test_accuracy(network, test)}
    for name, mask in dropped.items():
        retrained = trainer.train(features, labels, np.flatnonzero(~mask), _ORDINARY, seed)
        accuracy[name] = _test_accuracy(retrained, test)
    estimate = noise_rate(runs.aum, runs.sets, "all")
    return {
        "data": cell.data, "noise": cell.kind, "rate": cell.rate, "seed": cell.seed, "samples": len(labels),
        "true_share": float(wrong.mean()),
        "estimate": float(estimate["estimate"]), "low": float(estimate["low"]), "high": float(estimate["high"]),
        **_scores("aum", -ranking.aum, wrong, ranking.suspect),
        **_scores("loss", _losses(network, features, labels), wrong, None),
        **_scores("loss_early", _losses(early, features, labels), wrong, None),
        **_scores("confident", -quality, wrong, issues),
        **{f"accuracy_{name}": value for name, value in accuracy.items()},
    }  # fmt: skip


def _scores(name: str, score: Float64, wrong: Bools, flagged: Bools | None) -> Row:
    """Detection figures of one ranking; higher ``score`` means more suspicious."""
    count = int(wrong.sum())
    top = np.zeros_like(wrong)
    top[np.argsort(-score, kind="stable")[:count]] = True
    row: Row = {
        f"auroc_{name}": float(roc_auc_score(wrong, score)),
        f"ap_{name}": float(average_precision_score(wrong, score)),
        f"f1_k_{name}": float((top & wrong).sum() / count),
    }
    if flagged is not None:
        hits, flags = int((flagged & wrong).sum()), int(flagged.sum())
        row |= {
            f"flagged_{name}": float(flagged.mean()),
            f"precision_{name}": hits / max(flags, 1),
            f"recall_{name}": hits / count,
            f"f1_{name}": 2 * hits / (flags + count),
        }
    return row


def _confident_learning(trainer: _Trainer, features: Features, labels: Int64, seed: int) -> tuple[Float64, Bools]:
    """Label quality and issues by cleanlab from out-of-fold probabilities of the same network.

    Northcutt, Jiang, Chuang, "Confident Learning", JAIR 2021.
    """
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    classes = int(labels.max()) + 1
    fold = np.random.default_rng(derive_seed(seed, 13)).permutation(len(labels)) % _CL_FOLDS
    probabilities: npt.NDArray[np.float64] = np.empty((len(labels), classes))
    for number in range(_CL_FOLDS):
        network = trainer.train(
            features, labels, np.flatnonzero(fold != number), _SCHEDULE, derive_seed(seed, 14, number)
        )
        out = torch.from_numpy(np.flatnonzero(fold == number))
        probabilities[out.numpy()] = logits_of(network, features.inputs[out]).double().softmax(dim=1).numpy()
    issues = find_label_issues(labels, probabilities, n_jobs=1)
    return np.asarray(get_label_quality_scores(labels, probabilities)), np.asarray(issues, dtype=bool)


def _losses(network: Classifier, features: Features, labels: Int64) -> Float64:
    logits = logits_of(network, features.inputs).double()
    return torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels), reduction="none").numpy()


def _random(suspect: Bools, seed: int) -> Bools:
    mask = np.zeros_like(suspect)
    mask[np.random.default_rng(derive_seed(seed, 15)).permutation(len(suspect))[: int(suspect.sum())]] = True
    return mask


def _test_accuracy(network: Classifier, test: Dataset) -> float:
    inputs = image_tensor(np.asarray(test.inputs))
    return float((logits_of(network, inputs).argmax(dim=1).numpy() == test.require_labels()).mean())
