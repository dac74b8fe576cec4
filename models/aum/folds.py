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
from models.core.devices import pick_device
from models.core.inputs import Float32, Float64, Int64
from models.core.margins import MarginKind, Margins
from models.core.training import Arrays


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
    sets = threshold_sets(len(labels), plan, seed)
    results = []
    for fold, (name, chosen) in enumerate(zip(plan.names, sets, strict=True)):
        result = stages.result(name)
        if result is None:
            margins = _count_margins(stages, name, features, labels, classes, chosen, plan, fold_seed(seed, fold))
            result = {
                "aum": margins.aum().cpu().numpy(),
                "last": margins.last.cpu().numpy(),
                "logit_sums": margins.logit_sums.cpu().numpy(),
                "trajectory": margins.trajectory.cpu().numpy(),
            }
            stages.finish(name, result)
        results.append(result)
    return gather_folds(sets, results, plan)


def threshold_sets(samples: int, plan: FoldPlan, seed: int) -> list[Int64]:
    """Threshold samples of each fold of the run with this seed.

    Raises:
        ValueError: the disjoint sets do not fit.
    """
    return draw_threshold_sets(samples, plan.threshold_count, plan.folds, derive_seed(seed, 0))


def fold_seed(seed: int, fold: int) -> int:
    """Seed of one fold's training."""
    return derive_seed(seed, 1, fold)


def relabelled(labels: Int64, chosen: Int64, classes: int) -> torch.Tensor:
    """What a fold learns: the labels, with its threshold samples in class ``classes``; int64 ``(N,)``."""
    targets = torch.from_numpy(labels.copy())
    targets[torch.from_numpy(chosen)] = classes
    return targets


def gather_folds(sets: list[Int64], results: list[Arrays], plan: FoldPlan) -> FoldRuns:
    """All folds together: of each ``aum``, ``last`` and ``logit_sums`` as :class:`Margins` has them, and ``trajectory``
    where the plan keeps them."""
    eligible = np.full(len(results[0]["aum"]), plan.folds)
    sums = np.zeros(results[0]["logit_sums"].shape, dtype=np.float32)
    for chosen, result in zip(sets, results, strict=True):
        eligible[chosen] -= 1
        judged = np.ones(len(eligible), dtype=bool)
        judged[chosen] = False
        sums[judged] += result["logit_sums"][judged]
    counted = np.where(eligible > 0, eligible * (plan.schedule.epochs - plan.skip_epochs), np.nan)
    return FoldRuns(
        sets,
        np.stack([result["aum"] for result in results]),
        np.stack([result["last"] for result in results]),
        (sums / counted[:, None]).astype(np.float32),
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
    margins = Margins(
        len(labels), classes, epochs=plan.schedule.epochs if plan.trajectories else 0, kind=plan.margin,
        device=pick_device(stages.run.device),
    )  # fmt: skip
    fit(
        stages, name, lambda: features.network(classes + 1), features.inputs, relabelled(labels, chosen, classes),
        plan.schedule, seed=seed, margins=margins, skip_epochs=plan.skip_epochs,
    )  # fmt: skip
    return margins
