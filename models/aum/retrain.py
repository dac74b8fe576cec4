"""What training without the suspects gains: all samples, the cleaned set, and as many dropped at random."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy import stats

from models.aum.features import Features
from models.aum.fit import Schedule, derive_seed, fit
from models.aum.ranking import Bools
from models.aum.stages import Stages
from models.core.classifiers import logits_of
from models.core.dataset import Dataset
from models.core.inputs import Float64, Int64
from models.core.method import MethodError

ARMS = ("all", "cleaned", "random_drop")
HELD_OUT = 0.1


@dataclass(frozen=True, eq=False)
class TestSet:
    """Where the accuracy is measured.

    Attributes:
        inputs: as the network takes them. labels: int64 ``(n,)``.
        training: bool ``(N,)``, samples of the data set that may be trained on.
        description: for the reader of the result.
    """

    __test__ = False  # not a test case for pytest

    inputs: torch.Tensor
    labels: Int64
    training: Bools
    description: str


def held_out(features: Features, labels: Int64, seed: int) -> TestSet:
    """A tenth of the data, with its labels as they are."""
    chosen = np.random.default_rng(seed).permutation(len(labels))[: max(2, round(HELD_OUT * len(labels)))]
    training = np.ones(len(labels), dtype=bool)
    training[chosen] = False
    share = f"{HELD_OUT:.0%}"
    return TestSet(
        features.inputs[torch.from_numpy(chosen)],
        labels[chosen],
        training,
        f"a held-out {share} of the same data, whose labels are as noisy as the rest, which understates the gain",
    )


def trusted(features: Features, test: Dataset, class_names: list[str], samples: int) -> TestSet:
    """A data set with trusted labels, matched by class name.

    Raises:
        MethodError: a class of it is unknown; names it.
    """
    labels = test.require_labels()
    positions = {name: index for index, name in enumerate(class_names)}
    used = np.unique(labels)
    unknown = [test.class_names[index] for index in used if test.class_names[index] not in positions]
    if unknown:
        raise MethodError(f"trusted_test: class {unknown[0]!r} is not in the data set")
    mapping = np.full(len(test.class_names), -1, dtype=np.int64)
    mapping[used] = [positions[test.class_names[index]] for index in used]
    return TestSet(
        features.encode(test),
        mapping[labels],
        np.ones(samples, dtype=bool),
        f"{len(labels)} samples with trusted labels",
    )


def stage_names(seeds: int) -> list[str]:
    """Stages of the comparison."""
    return [f"retrain {number + 1} of {seeds}: {arm}" for number in range(seeds) for arm in ARMS]


def measure_gain(
    stages: Stages,
    features: Features,
    labels: Int64,
    classes: int,
    kept: Bools,
    test: TestSet,
    schedule: Schedule,
    *,
    seeds: int,
    seed: int,
) -> dict[str, Any]:
    """Accuracy after training from scratch on each arm, and the gain of the cleaned one.

    The 95% ``interval`` of the gain covers the choice of seeds (Student's t over paired differences) and of test
    samples (normal, over per-sample differences averaged over seeds); both variances are added.
    """
    correct = {arm: np.empty((seeds, len(test.labels))) for arm in ARMS}
    names = iter(stage_names(seeds))
    for number in range(seeds):
        arm_seed = derive_seed(seed, 2, number)
        for arm, mask in _arms(kept, test.training, arm_seed).items():
            name = next(names)
            result = stages.result(name)
            if result is None:
                result = {
                    "correct": train_and_test(stages, name, features, labels, classes, mask, test, schedule, arm_seed)
                }
                stages.finish(name, result)
            correct[arm][number] = result["correct"]
    gain, interval = paired_interval(correct["cleaned"] - correct["all"])
    return {
        **{f"test_accuracy_{arm}": float(values.mean()) for arm, values in correct.items()},
        "gain": gain,
        "interval": interval,
        "seeds": seeds,
        "evaluated_on": test.description,
    }


def _arms(kept: Bools, training: Bools, seed: int) -> dict[str, Bools]:
    """Which samples each arm trains on; bool ``(N,)`` each."""
    cleaned = kept & training
    positions = np.flatnonzero(training)
    chosen = np.random.default_rng(seed).permutation(positions)[: int(cleaned.sum())]
    random_drop = np.zeros_like(training)
    random_drop[chosen] = True
    return {"all": training, "cleaned": cleaned, "random_drop": random_drop}


def train_and_test(
    stages: Stages,
    name: str,
    features: Features,
    labels: Int64,
    classes: int,
    mask: Bools,
    test: TestSet,
    schedule: Schedule,
    seed: int,
) -> Bools:
    """Train an ordinary network on the samples of ``mask``; which test samples it gets right, bool ``(n,)``."""
    positions = torch.from_numpy(np.flatnonzero(mask))
    network = fit(
        stages, name, lambda: features.network(classes), features.inputs[positions],
        torch.from_numpy(labels)[positions], schedule, seed=seed,
    )  # fmt: skip
    predicted = logits_of(network, test.inputs).argmax(dim=1).numpy()
    return np.asarray(predicted == test.labels)


def paired_interval(differences: Float64) -> tuple[float, list[float]]:
    """Mean of ``differences`` ``(seeds, n)`` and its 95% interval ``[low, high]``; see :func:`measure_gain`."""
    seeds, samples = differences.shape
    mean = float(differences.mean())
    half = stats.norm.ppf(0.975) * differences.mean(axis=0).std(ddof=1) / np.sqrt(samples)
    if seeds > 1:
        spread = stats.t.ppf(0.975, seeds - 1) * differences.mean(axis=1).std(ddof=1) / np.sqrt(seeds)
        half = np.hypot(half, spread)
    return mean, [mean - float(half), mean + float(half)]
