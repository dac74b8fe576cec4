"""Cells of the proof: data sets with injected label noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch

from models.aum.features import Features, extract_features
from models.aum.fit import derive_seed
from models.aum.ranking import Bools
from models.aum.side_by_side import Member
from models.core.dataset import Dataset
from models.core.inputs import Int64
from models.core.noise import corrupt_labels

Noise = Literal["none", "uniform", "flip"]
NOISES: tuple[tuple[Noise, float], ...] = (
    ("none", 0.0), ("uniform", 0.05), ("uniform", 0.1), ("uniform", 0.2), ("uniform", 0.4),
    ("flip", 0.1), ("flip", 0.2), ("flip", 0.4),
)  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """One setting of the proof and its seed."""

    data: str
    samples: int
    noise: Noise
    rate: float
    seed: int

    @property
    def name(self) -> str:
        """The noise as the command line names it, such as ``uniform-0.2``."""
        return self.noise if self.noise == "none" else f"{self.noise}-{self.rate}"

    @property
    def setting(self) -> str:
        """The setting in words."""
        noise = "no added noise" if self.noise == "none" else f"{self.noise} {self.rate:.0%}"
        return f"{self.data}, {noise}, N={self.samples:,}"


def cells_of(data: str, samples: int, seeds: Sequence[int]) -> list[Cell]:
    """All noises of one data set and size."""
    return [Cell(data, samples, noise, rate, seed) for noise, rate in NOISES for seed in seeds]


@dataclass(frozen=True, eq=False)
class Noisy:
    """A cell's data: ``first`` is the position of its samples in the trainer's inputs."""

    cell: Cell
    features: Features
    first: int
    truth: Int64
    labels: Int64

    @property
    def wrong(self) -> Bools:
        """Which labels are wrong, bool ``(N,)``."""
        return np.asarray(self.labels != self.truth)

    def member(self, targets: torch.Tensor, chosen: Int64, outputs: int, seed: int) -> Member:
        """A training on the ``chosen`` of this cell's samples."""
        build = partial(self.features.network, outputs)
        return Member(build, self.first, targets, torch.from_numpy(chosen), seed)


def corrupted(cells: Sequence[Cell], clean: Dataset) -> tuple[list[Noisy], torch.Tensor]:
    """The cells' data, and the inputs of all of them: once a seed, which chooses the samples."""
    features: dict[int, tuple[int, Features, Int64]] = {}
    found = []
    for cell in cells:
        if cell.seed not in features:
            chosen = np.random.default_rng(derive_seed(cell.seed, 10)).permutation(len(clean))[: cell.samples]
            subset = clean.select(chosen)
            extracted = extract_features(subset, "small-cnn", image_size=64, seed=cell.seed)
            features[cell.seed] = len(features) * cell.samples, extracted, subset.require_labels()
        first, extracted, truth = features[cell.seed]
        labels = truth
        if cell.noise != "none":
            seed = derive_seed(cell.seed, 11)
            labels = corrupt_labels(truth, len(clean.class_names), kind=cell.noise, rate=cell.rate, seed=seed)
        found.append(Noisy(cell, extracted, first, truth, labels))
    return found, torch.cat([extracted.inputs for _, extracted, _ in features.values()])
