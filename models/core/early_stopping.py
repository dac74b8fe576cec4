"""When to stop training on labels that may be wrong, and which weights to keep.

A network that is trained by gradient descent fits the labels that agree with their neighbours first and wrong ones
late (Li, Soltanolkotabi & Oymak, AISTATS 2020). The trainer calls :meth:`EarlyStopper.update` after every epoch and
:meth:`EarlyStopper.restore` at the end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models.core.dataset import Dataset
from models.core.datasets.checks import duplicate_groups
from models.core.figures import Figure
from models.core.inputs import Float64, Int64
from models.core.method import MethodError
from models.core.run import Run
from models.core.trainer_options import EarlyStopping
from models.core.training import Arrays

Weights = dict[str, Tensor]
FEW_SAMPLES = 300  # of validation: below, one standard error is more than 1.5 points at 90% accuracy


class EarlyStopper:
    """Watches a training and keeps the weights of the epochs that may be chosen.

    Args:
        module: what is trained; its state now is the start that distances are taken from.
        validation_samples: held-out samples behind the accuracy, for its standard error.

    Attributes:
        curve: one row an epoch: ``epoch``, ``relative_distance``, ``validation_accuracy`` and ``changed`` (share of
            training predictions that differ from the epoch before), the last two where they were given.
        stopped_at: the epoch after which the rule said stop, or None so far.
    """

    def __init__(self, options: EarlyStopping, module: nn.Module, validation_samples: int = 0) -> None:
        self.options, self.module, self.validation_samples = options, module, validation_samples
        self.curve: list[dict[str, float | None]] = []
        self.stopped_at: int | None = None
        self._start = _weights(module)
        self._kept: dict[int, Weights] = {}
        self._predictions: Tensor | None = None
        self._chosen = 0

    def update(self, *, accuracy: float | None = None, predictions: Tensor | None = None) -> bool:
        """Take in one finished epoch; whether to stop now.

        Args:
            accuracy: on held-out labels as they are; needed by ``noisy-validation``.
            predictions: int ``(N,)`` of the training samples; needed by ``label-wave``.

        Raises:
            ValueError: what the rule needs is missing.
        """
        changed = None
        if predictions is not None:
            if self._predictions is not None:
                changed = float((predictions != self._predictions).double().mean())
            self._predictions = predictions.clone()
        if self.options.rule == "noisy-validation" and accuracy is None:
            raise ValueError("accuracy: the rule noisy-validation needs it")
        if self.options.rule == "label-wave" and predictions is None:
            raise ValueError("predictions: the rule label-wave needs them")
        epoch = len(self.curve) + 1
        distance = relative_distance(self._start, _weights(self.module))
        self.curve.append(
            {"epoch": epoch, "relative_distance": distance, "validation_accuracy": accuracy, "changed": changed}
        )
        if self.stopped_at is None:
            self._kept[epoch] = _weights(self.module)
            self._chosen, wanted = self._choose()
            self._kept = {number: weights for number, weights in self._kept.items() if number in wanted}
            if epoch >= self.options.min_epochs and self._is_over(epoch):
                self.stopped_at = epoch
        return self.stopped_at is not None and not self.options.continue_to_end

    @property
    def chosen(self) -> int:
        """The 1-based epoch whose weights are kept."""
        return self._chosen

    def restore(self) -> int:
        """Put the chosen epoch's weights, bit for bit, into the module and return the epoch."""
        self.module.load_state_dict(self._kept[self._chosen])
        return self._chosen

    def scores(self) -> Float64:
        """The watched curve, higher is better, after a centred running median; ``-inf`` before ``min_epochs``."""
        if self.options.rule == "label-wave":
            raw = np.array([-np.inf if row["changed"] is None else -row["changed"] for row in self.curve])
        else:
            raw = np.array([row["validation_accuracy"] for row in self.curve], dtype=np.float64)
        half = self.options.smoothing // 2
        smooth = np.array([np.median(raw[max(0, i - half) : i + half + 1]) for i in range(len(raw))])
        smooth[: self.options.min_epochs - 1] = -np.inf
        return smooth

    def _choose(self) -> tuple[int, set[int]]:
        """The epoch to restore if training stopped now, and all that later epochs may still make it."""
        epoch, options = len(self.curve), self.options
        if options.restore == "last":
            return epoch, {epoch}
        if options.rule == "fixed":
            chosen = min(epoch, options.epochs or epoch)
            return chosen, {chosen}
        if options.rule == "distance":
            assert options.distance_budget is not None
            inside = [row["relative_distance"] <= options.distance_budget for row in self.curve]  # type: ignore[operator]
            beyond = [i for i, within in enumerate(inside) if not within and i + 1 >= options.min_epochs]
            chosen = max(options.min_epochs, beyond[0]) if beyond else epoch
            chosen = min(chosen, epoch)
            return chosen, {chosen}
        smooth = self.scores()
        settled = max(0, epoch - options.smoothing // 2)  # later medians may still change
        wanted = set(range(settled + 1, epoch + 1))
        if settled:
            final = smooth[:settled]
            records = np.maximum.accumulate(np.concatenate([[-np.inf], final]))[:-1]
            close = (final > records) & (final >= final.max() - self._tolerance(final))
            wanted |= {int(i) + 1 for i in np.flatnonzero(close)}
        chosen = int(np.argmax(smooth >= smooth.max() - self._tolerance(smooth))) + 1
        return chosen, wanted | {chosen}

    def _tolerance(self, scores: Float64) -> float:
        if not self.options.one_standard_error or not np.isfinite(scores.max()):
            return 0.0
        best = float(scores.max())
        return float(np.sqrt(best * (1 - best) / max(1, self.validation_samples)))

    def _is_over(self, epoch: int) -> bool:
        options = self.options
        if options.rule == "fixed":
            return epoch >= (options.epochs or 0)
        if options.rule == "distance":
            return (self.curve[-1]["relative_distance"] or 0.0) > (options.distance_budget or 0.0)
        scores = self.scores()
        return bool(np.isfinite(scores.max())) and epoch - (int(np.argmax(scores)) + 1) >= options.patience

    def state(self) -> tuple[Arrays, dict[str, Any]]:
        """Everything as arrays and facts, for a resume point."""
        arrays: Arrays = {f"start/{name}": tensor.cpu().numpy() for name, tensor in self._start.items()}
        for epoch, weights in self._kept.items():
            arrays |= {f"kept/{epoch}/{name}": tensor.cpu().numpy() for name, tensor in weights.items()}
        if self._predictions is not None:
            arrays["predictions"] = self._predictions.cpu().numpy()
        return arrays, {"curve": self.curve, "stopped_at": self.stopped_at, "chosen": self._chosen}

    def load_state(self, arrays: Arrays, facts: Mapping[str, Any]) -> None:
        """Restore what :meth:`state` gave."""
        self._start, self._kept = {}, {}
        for key, array in arrays.items():
            tensor = torch.from_numpy(np.array(array))
            if key.startswith("start/"):
                self._start[key.removeprefix("start/")] = tensor
            elif key.startswith("kept/"):
                _, epoch, name = key.split("/", 2)
                self._kept.setdefault(int(epoch), {})[name] = tensor
        self._predictions = torch.from_numpy(np.array(arrays["predictions"])) if "predictions" in arrays else None
        self.curve = [dict(row) for row in facts["curve"]]
        self.stopped_at, self._chosen = facts["stopped_at"], facts["chosen"]


def replay(options: EarlyStopping, accuracies: Sequence[float], held_out: int) -> int:
    """The 1-based epoch that the rule ``noisy-validation`` of ``options`` keeps of a training that is over.

    Args:
        accuracies: on held-out labels, one an epoch.
        held_out: samples behind them.
    """
    stopper = EarlyStopper(options, nn.Module(), held_out)
    for accuracy in accuracies:
        if stopper.update(accuracy=accuracy):
            break
    return stopper.chosen


def _weights(module: nn.Module) -> Weights:
    return {name: tensor.detach().cpu().clone() for name, tensor in module.state_dict().items()}


def relative_distance(start: Mapping[str, Tensor], now: Mapping[str, Tensor]) -> float:
    """``|W - W0|_F / |W0|_F`` over matrices and kernels; biases and normalisation are left out."""
    chosen = [name for name, tensor in start.items() if tensor.ndim > 1 and tensor.is_floating_point()]
    moved = sum(float((now[name].double() - start[name].double()).square().sum()) for name in chosen)
    size = sum(float(start[name].double().square().sum()) for name in chosen)
    return float(np.sqrt(moved / size)) if size > 0 else 0.0


def noisy_accuracy(clean: float, rate: float, classes: int) -> float:
    """Expected accuracy on labels of which ``rate`` moved uniformly to the other classes."""
    return (1 - rate) * clean + rate * (1 - clean) / (classes - 1)


def estimated_clean_accuracy(noisy: float, rate: float, classes: int) -> float:
    """The accuracy in [0, 1] on clean labels that :func:`noisy_accuracy` turns into ``noisy``.

    Raises:
        ValueError: at this rate noisy accuracy does not rise with clean accuracy.
    """
    if rate >= (classes - 1) / classes - 1e-9:
        raise ValueError(f"noise_rate: from {(classes - 1) / classes:.3g} on, labels of {classes} classes say nothing")
    slope = 1 - rate - rate / (classes - 1)
    return float(np.clip((noisy - rate / (classes - 1)) / slope, 0, 1))


def effective_rate(reassigned: float, classes: int) -> float:
    """Share of wrong labels when a share ``reassigned`` gets a label at random, which may be the same one."""
    return reassigned * (classes - 1) / classes


def validation_split(dataset: Dataset, share: float, seed: int) -> tuple[Int64, Int64]:
    """Positions for training and for validation, by class; identical samples stay on one side."""
    labels = dataset.require_labels()
    first = np.arange(len(dataset))
    for group in duplicate_groups(dataset):
        first[group] = group[0]
    generator = np.random.default_rng(seed)
    leaders = np.unique(first)
    held = np.zeros(len(dataset), dtype=bool)
    for label in np.unique(labels):
        members = leaders[labels[leaders] == label]
        held[generator.permutation(members)[: round(share * len(members))]] = True
    held = held[first]
    return np.flatnonzero(~held), np.flatnonzero(held)


def check_noise_rate(options: EarlyStopping | None, classes: int) -> None:
    """Say before the training that nothing could be estimated after it.

    Raises:
        MethodError: at the given noise rate labels say nothing.
    """
    if options is not None and options.noise_rate is not None:
        try:
            estimated_clean_accuracy(0.5, options.noise_rate, classes)
        except ValueError as error:
            raise MethodError(f"early_stopping.{error}") from error


def hold_out(dataset: Dataset, options: EarlyStopping, seed: int, run: Run) -> tuple[Int64, Int64]:
    """Positions for training and those whose labels choose the epoch; tells the run where the latter are few.

    Raises:
        MethodError: nothing would be held out.
    """
    kept, held = validation_split(dataset, options.validation_share, seed)
    if not len(held):
        raise MethodError("early_stopping.validation_share: it holds out no sample")
    if len(held) < FEW_SAMPLES:
        error = 50 / len(held) ** 0.5
        run.log(f"only {len(held)} samples choose the epoch: one standard error is up to {error:.1f} points")
    return kept, held


def stopping_figures(
    options: EarlyStopping, row: Mapping[str, float | int | str | None], epoch: int, classes: int
) -> list[Figure]:
    """What a training's curve says at the epoch whose weights are kept.

    Args:
        row: of the curve, that of ``epoch`` (1-based).
    """
    setting = f"epoch {epoch}, rule {options.rule}"
    figures = [Figure(name="relative distance", value=float(row["relative_distance"] or 0), setting=setting)]
    noisy = row["validation_accuracy"]
    if noisy is not None:
        figures.append(Figure(name="noisy-validation accuracy", value=float(noisy), setting=setting))
        if options.noise_rate is not None:
            value = estimated_clean_accuracy(float(noisy), options.noise_rate, classes)
            figures.append(Figure(name="estimated clean accuracy", value=value, setting=f"noise {options.noise_rate}"))
    return figures
