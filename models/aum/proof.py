"""The method's proof: injected label noise on real data, against other rankings and noise estimates.

Every method trains the same network for the same epochs. One :class:`Cell` is one data set, noise and seed; cells of
one data set and size are measured together, their networks trained side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from models.aum.cells import Cell, Noisy, corrupted
from models.aum.fit import derive_seed
from models.aum.folds import FoldRuns
from models.aum.ranking import Bools, Ranking, rank_samples
from models.aum.scores import confident_learning, flag_scores, losses, mixture, ranking_scores
from models.aum.thresholds import noise_rate
from models.aum.trainer import Trainer
from models.core.classifiers import batch_tensor, logits_of
from models.core.devices import device_name
from models.core.inputs import Float64
from models.core.parts import Row
from models.core.run import Run
from models.core.sources import load


@dataclass(frozen=True, eq=False)
class _Judged:
    """What the rankings of one cell say; ``probability`` is the mean of the assigned class's over the AUM runs."""

    runs: FoldRuns
    ranking: Ranking
    probability: Float64
    loss_early: Float64
    quality: Float64
    issues: Bools

    def dropped(self, noisy: Noisy) -> dict[str, Bools]:
        """What each arm of the retraining leaves out."""
        suspect, wrong = self.ranking.suspect, noisy.wrong
        chosen = np.random.default_rng(derive_seed(noisy.cell.seed, 15)).permutation(len(suspect))
        at_random = np.zeros_like(suspect)
        at_random[chosen[: int(suspect.sum())]] = True
        masks = {"all": np.zeros_like(wrong), "aum": suspect, "confident": self.issues, "random": at_random}
        return masks | ({"oracle": wrong} if wrong.any() else {})


def measure_cells(cells: Sequence[Cell], run: Run, *, retrain: bool = True) -> list[Row]:
    """A row of figures for each cell; all of one data set and size.

    Rankings (``aum``, ``probability``, ``loss`` at the end of ordinary training, ``loss_early`` after as many epochs
    as AUM counts, ``confident``): see :func:`ranking_scores`. Flags of those that have some, and of a two-component
    ``mixture`` on AUM: see :func:`flag_scores`. Noise rates: ``true_share``, ``estimate`` between ``low`` and
    ``high``, and by mixtures on AUM and on the early loss. ``accuracy_*``: on clean test data after training on all
    samples, without those flagged by each method, without as many at random, and without all wrong labels (oracle);
    without ``retrain`` the first only, whose training the final loss comes from.

    Raises:
        DataUnavailableError: the data cannot be had.
        NonFiniteLogitsError: a training diverged.
        Cancelled: the user asked for it.
    """
    clean, test = load(cells[0].data, "train"), load(cells[0].data, "test")
    noisy, inputs = corrupted(cells, clean)
    trainer = Trainer(inputs, len(clean.class_names), cells[0].samples, run)
    judged = _judge(trainer, noisy)
    rows = [_row(data, found, trainer.device) for data, found in zip(noisy, judged, strict=True)]
    arms = [(number, name, mask) for number, found in enumerate(judged)
            for name, mask in found.dropped(noisy[number]).items() if retrain or name == "all"]  # fmt: skip
    networks = trainer.retrain([(noisy[number], mask) for number, _, mask in arms])
    test_inputs = batch_tensor(test.inputs).to(trainer.device)
    for (number, name, _), network in zip(arms, networks, strict=True):
        predicted = logits_of(network, test_inputs).argmax(dim=1).numpy()
        rows[number][f"accuracy_{name}"] = float((predicted == test.require_labels()).mean())
        if name == "all":
            data = noisy[number]
            rows[number] |= ranking_scores("loss", losses(network, trainer.samples_of(data), data.labels), data.wrong)
    return rows


def _judge(trainer: Trainer, noisy: Sequence[Noisy]) -> list[_Judged]:
    """Every ranking of every cell."""
    counted = trainer.count(noisy)
    early = [
        losses(network, trainer.samples_of(data), data.labels)
        for data, network in zip(noisy, trainer.stopped_early(noisy), strict=True)
    ]
    judged = []
    for data, (runs, mean), loss, outside in zip(noisy, counted, early, trainer.out_of_fold(noisy), strict=True):
        quality, issues = confident_learning(data.labels, outside)
        judged.append(_Judged(runs, rank_samples(runs, data.labels, 99.0, "all"), mean, loss, quality, issues))
    return judged


def _row(noisy: Noisy, judged: _Judged, device: torch.device) -> Row:
    """Everything but what needs retraining."""
    cell, wrong, aum = noisy.cell, noisy.wrong, judged.ranking.aum
    estimate = noise_rate(judged.runs.aum, judged.runs.sets, "all")
    share, mixed = mixture(-aum)
    row: Row = {
        "data": cell.data, "samples": cell.samples, "noise": cell.noise, "rate": cell.rate, "seed": cell.seed,
        "device": device_name(device),
        "true_share": float(wrong.mean()),
        "estimate": float(estimate["estimate"]), "low": float(estimate["low"]), "high": float(estimate["high"]),
        "estimate_mixture": share, "estimate_loss_mixture": mixture(judged.loss_early)[0],
    }  # fmt: skip
    rankings = {"aum": -aum, "probability": -judged.probability, "loss_early": judged.loss_early,
                "confident": -judged.quality}  # fmt: skip
    for name, score in rankings.items():
        row |= ranking_scores(name, score, wrong)
    for name, flags in {"aum": judged.ranking.suspect, "mixture": mixed, "confident": judged.issues}.items():
        row |= flag_scores(name, flags, wrong)
    return row
