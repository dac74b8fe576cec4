"""SAM in the trainers of two other methods: the same training with and without it, through their public contract."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from pydantic import BaseModel

from models.core.dataset import Dataset
from models.core.devices import pick_device
from models.core.method import Method
from models.core.noise import corrupt_labels
from models.core.parts import Row
from models.core.probes import knn_accuracy
from models.core.registry import Registry
from models.core.run import Run
from models.core.sources import load

RADII = (0.0, 0.05, 0.2)
SEEDS = (0, 1, 2)
_CHUNK = 1000


@dataclass(frozen=True)
class Trainer:
    """A method's training.

    Attributes:
        config: of the training, without ``sharpness_aware``.
        data: the training set for a seed.
        measure: of the trained method on the training set and the clean test set.
        name: of what ``measure`` gives. setting: the data in words.
    """

    config: dict[str, Any]
    data: Callable[[int], Dataset]
    measure: Callable[[Method[Any, Any], Any, Dataset, Dataset], float]
    name: str
    setting: str


def _pictures(count: int, seed: int) -> Dataset:
    clean = load("fashion-mnist", "train")
    return clean.select(np.random.default_rng(seed).permutation(len(clean))[:count])


def _mislabeled(seed: int) -> Dataset:
    chosen = _pictures(8_000, seed)
    wrong = corrupt_labels(chosen.require_labels(), 10, kind="uniform", rate=0.4, seed=seed)
    return replace(chosen, labels=wrong)


def _answers(method: Method[Any, Any], params: Any, inputs: Any) -> np.ndarray[Any, Any]:
    starts = range(0, len(inputs), _CHUNK)
    return np.concatenate([np.stack(method.predict(inputs[at : at + _CHUNK], params)) for at in starts])


def _accuracy(method: Method[Any, Any], params: Any, _: Dataset, test: Dataset) -> float:
    return float(np.mean(_answers(method, params, test.inputs).argmax(1) == test.require_labels()))


def _neighbours(method: Method[Any, Any], params: Any, train: Dataset, test: Dataset) -> float:
    gallery, queries = (_answers(method, params, part.inputs) for part in (train, test))
    return knn_accuracy(gallery, train.require_labels(), queries, test.require_labels())


TRAINERS = {
    "aum": Trainer(
        {"epochs": 12, "validation_share": 0}, _mislabeled, _accuracy,
        "accuracy on the clean test set", "Fashion-MNIST, 40% wrong labels, N=8,000",
    ),
    "align-uniform": Trainer(
        {"epochs": 4, "width": 8}, lambda seed: _pictures(4_000, seed), _neighbours,
        "accuracy of 20 nearest neighbours", "Fashion-MNIST, N=4,000, width 8, 4 epochs",
    ),
}  # fmt: skip


def options(slug: str, rho: float) -> BaseModel:
    """The configuration of the compared training of a method."""
    steps = {"kind": "sam", "rho": rho} if rho else {"kind": "none"}
    return Registry()[slug].config.model_validate({**TRAINERS[slug].config, "sharpness_aware": steps})


def measure_trainer(slug: str, rho: float, seed: int, run: Run) -> Row:
    """Train the method with SAM of radius ``rho``, 0: without it, and judge the version.

    Raises:
        DataUnavailableError: the data cannot be had.
        Cancelled: the user asked for it.
    """
    trainer, entry = TRAINERS[slug], Registry()[slug]
    data = trainer.data(seed)
    checkpoint = entry.method.train(data, options(slug, rho), run)
    method = entry.method.load(checkpoint, pick_device(run.device))
    value = trainer.measure(method, entry.default_params, data, load("fashion-mnist", "test"))
    return {"trainer": slug, "rho": rho, "seed": seed, "measure": trainer.name, "value": value}
