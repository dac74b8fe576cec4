"""Runs that count margins: one training a fold, each with threshold samples of its own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from models.aum.features import Features
from models.aum.fit import Schedule, derive_seed, fit
from models.aum.stages import Stages
from models.aum.thresholds import draw_threshold_sets
from models.core.inputs import Float32, Float64, Int64
from models.core.margins import MarginKind, Margins


@dataclass(frozen=True)
class FoldPlan:
    """How margins are counted.

    Attributes:
        threshold_count: threshold samples of each fold.
        skip_epochs: first epochs that are not counted.
    """

    folds: int
    threshold_count: int
    schedule: Schedule
    skip_epochs: int = 1
    margin: MarginKind = "logit"
    trajectories: bool = False

    @property
    def names(self) -> list[str]:
        """Names of the stages."""
        return [f"fold {fold + 1} of {self.folds}" for fold in range(self.folds)]


@dataclass(frozen=True, eq=False)
class FoldRuns:
    """What the folds measured.

    Attributes:
        sets: threshold samples of each fold, int64 positions.
        aum: float64 ``(R, N)``; a fold's threshold samples carry the AUM of the threshold class.
        last: float32 ``(R, N)``, margins of the last epoch.
        mean_logits: float32 ``(N, c)`` over counted epochs and the folds that may judge a sample; NaN where none.
        trajectories: float16 ``(R, N, epochs)``, or None.
    """

    sets: list[Int64]
    aum: Float64
    last: Float32
    mean_logits: Float32
    trajectories: npt.NDArray[np.float16] | None

    @property
    def threshold_accuracy(self) -> list[float]:
        """Share of each fold's threshold samples that the network had learned by the last epoch."""
        return [float((last[chosen] > 0).mean()) for last, chosen in zip(self.last, self.sets, strict=True)]


def run_folds(stages: Stages, features: Features, labels: Int64, classes: int, plan: FoldPlan, seed: int) -> FoldRuns:
    """Train once a fold with the threshold samples relabelled as class ``classes``, and collect the margins.

    Args:
        labels: int64 ``(N,)`` in ``0..classes-1``.

    Raises:
        Cancelled: the user asked for it.
        NonFiniteLogitsError: training diverged.
        ValueError: the disjoint threshold sets do not fit.
    """
    sets = draw_threshold_sets(len(labels), plan.threshold_count, plan.folds, derive_seed(seed, 0))
    results = []
    for fold, (name, chosen) in enumerate(zip(plan.names, sets, strict=True)):
        result = stages.result(name)
        if result is None:
            margins = _count_margins(stages, name, features, labels, classes, chosen, plan, derive_seed(seed, 1, fold))
            result = {
                "aum": margins.aum().cpu().numpy(),
                "last": margins.last.cpu().numpy(),
                "logit_sums": margins.logit_sums.cpu().numpy(),
                "trajectory": margins.trajectory.cpu().numpy(),
            }
            result["logit_sums"][chosen] = 0
            stages.finish(name, result)
        results.append(result)
    eligible = np.full(len(labels), plan.folds)
    for chosen in sets:
        eligible[chosen] -= 1
    counted = np.where(eligible > 0, eligible * (plan.schedule.epochs - plan.skip_epochs), np.nan)
    return FoldRuns(
        sets,
        np.stack([result["aum"] for result in results]),
        np.stack([result["last"] for result in results]),
        (np.sum([result["logit_sums"] for result in results], axis=0) / counted[:, None]).astype(np.float32),
        np.stack([result["trajectory"] for result in results]) if plan.trajectories else None,
    )


def _count_margins(
    stages: Stages,
    name: str,
    features: Features,
    labels: Int64,
    classes: int,
    chosen: Int64,
    plan: FoldPlan,
    seed: int,
) -> Margins:
    targets = torch.from_numpy(labels.copy())
    targets[torch.from_numpy(chosen)] = classes
    margins = Margins(
        len(labels), classes, epochs=plan.schedule.epochs if plan.trajectories else 0, kind=plan.margin
    )  # fmt: skip
    fit(
        stages, name, lambda: features.network(classes + 1), features.inputs, targets, plan.schedule,
        seed=seed, margins=margins, skip_epochs=plan.skip_epochs,
    )  # fmt: skip
    return margins
