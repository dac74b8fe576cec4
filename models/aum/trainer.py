"""The trainings of the proof: what each cell's rankings and retrained classifiers need."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import torch

from models.aum.cells import Noisy
from models.aum.fit import Schedule, derive_seed, ordinary_schedule
from models.aum.folds import FoldPlan, FoldRuns, fold_seed, gather_folds, relabelled, threshold_sets
from models.aum.network import Classifier
from models.aum.ranking import Bools
from models.aum.side_by_side import Member, Passes, fit_side_by_side
from models.aum.thresholds import mean_over_eligible, threshold_count
from models.core.classifiers import logits_of
from models.core.devices import pick_device
from models.core.inputs import Float64
from models.core.run import Run
from models.core.training import Arrays

_EPOCHS, _CL_FOLDS = 8, 3
COUNTING = Schedule(_EPOCHS, 64, 0.1, 1e-4)
_EARLY = Schedule(_EPOCHS, 64, 0.1, 1e-4, decay=True)
_ORDINARY = ordinary_schedule(COUNTING)
# One after the other on a CPU, where stacked convolutions are slower than single ones.
_AT_ONCE = {"cpu": 1, "cuda": 64}
# Where each stage begins and how much of the work it is, in epochs of all samples.
_WORK = {
    "margins": 2.0 * _EPOCHS, "early loss": 1.0 * _EPOCHS, "confident learning": (_CL_FOLDS - 1.0) * _EPOCHS,
    "retrain": 5.0 * _ORDINARY.epochs,
}  # fmt: skip
_TOTAL = sum(_WORK.values())
_COSTS = {name: (sum(list(_WORK.values())[:number]) / _TOTAL, work / _TOTAL)
          for number, (name, work) in enumerate(_WORK.items())}  # fmt: skip


class Trainer:
    """Trains the networks of several cells of one data set and size, as many at once as the device likes.

    Args:
        inputs: of all cells, see :class:`Noisy`.
        samples: of each cell.
    """

    def __init__(self, inputs: torch.Tensor, classes: int, samples: int, run: Run) -> None:
        self.device = pick_device(run.device)
        self.inputs, self.classes, self.samples, self.run = inputs.to(self.device), classes, samples, run
        self.plan = FoldPlan(2, threshold_count(samples, classes), COUNTING)

    def samples_of(self, noisy: Noisy) -> torch.Tensor:
        """The inputs of a cell."""
        return self.inputs[noisy.first : noisy.first + self.samples]

    def count(self, cells: Sequence[Noisy]) -> list[tuple[FoldRuns, Float64]]:
        """The folds of each cell, as a job of that seed runs them, and the mean probability over the same passes."""
        sets = [threshold_sets(self.samples, self.plan, noisy.cell.seed) for noisy in cells]
        members = [
            noisy.member(relabelled(noisy.labels, chosen, self.classes), np.arange(self.samples), self.classes + 1,
                         fold_seed(noisy.cell.seed, fold))
            for noisy, folds in zip(cells, sets, strict=True) for fold, chosen in enumerate(folds)
        ]  # fmt: skip
        passes: list[Arrays] = []
        for _ in self._train("margins", members, COUNTING, passes=passes):
            pass
        counted = []
        for number, folds in enumerate(sets):
            results = passes[number * self.plan.folds : (number + 1) * self.plan.folds]
            mean = mean_over_eligible(np.stack([result["probability"] for result in results]), folds)
            counted.append((gather_folds(folds, results, self.plan), mean))
        return counted

    def stopped_early(self, cells: Sequence[Noisy]) -> Iterator[Classifier]:
        """A network of each cell that learned all labels for as long as margins are counted, with a decaying rate."""
        members = [self._ordinary(noisy, np.arange(self.samples)) for noisy in cells]
        return self._train("early loss", members, _EARLY)

    def retrain(self, arms: Sequence[tuple[Noisy, Bools]]) -> Iterator[Classifier]:
        """A network of each arm by ordinary training without the samples of its mask."""
        members = [self._ordinary(noisy, np.flatnonzero(~dropped)) for noisy, dropped in arms]
        return self._train("retrain", members, _ORDINARY)

    def out_of_fold(self, cells: Sequence[Noisy]) -> list[Float64]:
        """Probabilities ``(N, classes)`` of each cell's samples by networks that have not seen them."""
        folds = [np.random.default_rng(derive_seed(noisy.cell.seed, 13)).permutation(self.samples) % _CL_FOLDS
                 for noisy in cells]  # fmt: skip
        members = [
            noisy.member(torch.from_numpy(noisy.labels), np.flatnonzero(fold != number), self.classes,
                         derive_seed(noisy.cell.seed, 14, number))
            for noisy, fold in zip(cells, folds, strict=True) for number in range(_CL_FOLDS)
        ]  # fmt: skip
        networks = self._train("confident learning", members, COUNTING)
        found = []
        for noisy, fold in zip(cells, folds, strict=True):
            probabilities = np.empty((self.samples, self.classes))
            for number in range(_CL_FOLDS):
                outside = np.flatnonzero(fold == number)
                inputs = self.samples_of(noisy)[torch.from_numpy(outside).to(self.device)]
                probabilities[outside] = logits_of(next(networks), inputs).double().softmax(dim=1).numpy()
            found.append(probabilities)
        return found

    def _ordinary(self, noisy: Noisy, chosen: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Member:
        return noisy.member(torch.from_numpy(noisy.labels), chosen, self.classes, derive_seed(noisy.cell.seed, 12))

    def _train(
        self,
        stage: str,
        members: Sequence[Member],
        schedule: Schedule,
        passes: list[Arrays] | None = None,
    ) -> Iterator[Classifier]:
        """The networks of ``members`` in their order; ``passes`` is filled where it is given."""
        size = _AT_ONCE[self.device.type]
        for start in range(0, len(members), size):
            chunk = members[start : start + size]
            counter = None if passes is None else Passes(len(chunk), self.samples, self.classes, self.device)
            report = partial(self._report, stage, start / len(members), len(chunk) / len(members))
            trained = fit_side_by_side(self.inputs, chunk, schedule, report, counter, self.plan.skip_epochs)
            if passes is not None and counter is not None:
                passes += counter.split()
            yield from trained

    def _report(self, stage: str, before: float, share: float, within: float) -> None:
        first, cost = _COSTS[stage]
        self.run.progress(first + cost * (before + share * within), stage)
