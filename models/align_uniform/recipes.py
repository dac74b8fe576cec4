"""Which encoders the proof compares: the method, SimCLR, controls and supervised ones, alike but for the loss."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from models.align_uniform.schema import Config
from models.core import sources
from models.core.dataset import Dataset
from models.core.inputs import ImageSpec

DATA = "fashion-mnist"
TRAIN_SAMPLES = 20_000
HELD_OUT = 512
STEPS = 624
SMALL_BATCH_STEPS = 3 * STEPS
SPEC = ImageSpec(height=28, width=28, channels=1)
BASE: dict[str, Any] = {"width": 16, "feat_dim": 64}
SIMCLR: dict[str, Any] = {"align_weight": 0.0, "uniform_weight": 0.0, "contrastive_weight": 1.0, "temperature": 0.2}


@dataclass(frozen=True)
class Recipe:
    """One encoder of the proof.

    Attributes:
        group: runs that differ by seed only.
        overrides: of the proof's base configuration.
        supervised: trained by cross-entropy on the labels of the same pictures and views.
    """

    group: str
    seed: int
    overrides: dict[str, Any] = field(default_factory=dict)
    supervised: bool = False
    steps: int = STEPS

    @property
    def name(self) -> str:
        """File name of the encoder."""
        return f"{self.group}-s{self.seed}"

    @property
    def config(self) -> Config:
        """The full configuration."""
        return Config(**{**BASE, **self.overrides})


def _recipes() -> dict[str, Recipe]:
    found: list[Recipe] = []

    def add(group: str, seeds: int, steps: int = STEPS, **overrides: Any) -> None:
        found.extend(Recipe(group, seed, overrides, steps=steps) for seed in range(seeds))

    add("align-uniform", 5)
    for temperature, seeds in ((0.2, 5), (0.1, 1), (0.5, 1), (1.0, 1)):
        add(f"simclr-tau-{temperature:g}", seeds, **{**SIMCLR, "temperature": temperature})
    for size, seeds in ((32, 5), (64, 3)):
        add(f"align-uniform-batch-{size}", seeds, SMALL_BATCH_STEPS, batch_size=size)
        add(f"simclr-batch-{size}", seeds, SMALL_BATCH_STEPS, **SIMCLR, batch_size=size)
    add("align-only", 2, uniform_weight=0.0)
    add("uniform-only", 2, align_weight=0.0)
    add("combined", 1, contrastive_weight=1.0, temperature=0.2)
    found.extend(Recipe("supervised", seed, supervised=True) for seed in range(2))
    for ratio, seeds in ((0.1, 1), (0.25, 2), (0.5, 2), (2.0, 2), (4.0, 2), (10.0, 1)):
        add(f"ratio-{ratio:g}", seeds, align_weight=min(1.0, 1 / ratio), uniform_weight=min(1.0, ratio))
    add("circle", 1, feat_dim=2)
    return {recipe.name: recipe for recipe in found}


RECIPES = _recipes()


def training_data(held_out: int = 0) -> Dataset:
    """The 20,000 pictures that every encoder and probe is trained on, and ``held_out`` more.

    Raises:
        DataUnavailableError: Fashion-MNIST cannot be had.
    """
    return sources.load(DATA, "train").select(np.arange(TRAIN_SAMPLES + held_out))
