"""The experiments behind the card's figures, each a function of a seed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from scipy.optimize import linear_sum_assignment

from models.core.dataset import Dataset
from models.core.inputs import ImageSpec
from models.core.outputs import Distance, Sides
from models.core.transport.clouds import side
from models.core.transport.labels import LabelDistance, label_tables
from models.otdd.distance import otdd
from models.otdd.schema import Params
from models.otdd.variants import blurred, cloud, coarse_digits, inverted, original, relabelled, rotated

ANGLES = (0, 15, 30, 45, 60, 90)
NOISES = (0.0, 0.1, 0.2, 0.4)
WIDE = 0.5
COARSE = ImageSpec(height=8, width=8, channels=1)


def distance(a: Dataset, b: Dataset, **parameters: Any) -> Distance:
    """The distance of two data sets of pictures."""
    return otdd(Sides(cloud(a), cloud(b)), Params(**parameters))


def both(a: Dataset, b: Dataset) -> tuple[float, float]:
    """OTDD and the label-agnostic W2, both exact."""
    return distance(a, b, solver="exact").distance, distance(a, b, solver="exact", label_distance="none").distance


def alignment(size: int, seed: int) -> dict[str, float]:
    """Does the distance find which digit is which, without their names? MNIST digits against 8 x 8 digits."""
    a, b = (side(coarse_digits(name, size, seed), COARSE) for name in ("digits", "digits-8x8"))
    found = otdd(Sides(a, b), Params(solver="exact")).details
    plain = otdd(Sides(a, b, return_coupling=True), Params(solver="exact", label_distance="none"))
    table, mass, digits = np.array(found["label_distances"]), np.array(found["class_coupling"]), np.arange(10)
    assert plain.coupling is not None and a.labels is not None and b.labels is not None
    same = a.labels[plain.coupling[0]] == b.labels[plain.coupling[1]]
    return {
        "classes aligned by label distance": float((table.argmin(axis=1) == digits).sum()),
        "classes aligned by label distance, one to one": float((linear_sum_assignment(table**2)[1] == digits).sum()),
        "classes aligned by coupling": float((mass.argmax(axis=1) == digits).sum()),
        "mass on the diagonal": float(np.trace(mass)),
        "mass on the diagonal, label-agnostic": float(plain.coupling[2][same].sum()),
    }


def rotation_drift(size: int, seed: int) -> dict[float, tuple[float, float]]:
    """``{degrees: (OTDD, label-agnostic W2)}`` of digits against other digits that are turned."""
    base, other = _halves("digits", size, seed)
    return {angle: both(base, rotated(other, angle)) for angle in ANGLES}


def noise_drift(size: int, seed: int) -> dict[float, tuple[float, float]]:
    """``{share of wrong labels: (OTDD, label-agnostic W2)}`` of digits against other digits."""
    base, other = _halves("digits", size, seed)
    return {share: both(base, relabelled(other, share, seed)) for share in NOISES}


def debiased_noise(size: int, seed: int) -> dict[float, tuple[float, float]]:
    """As :func:`noise_drift`, by divergences of a large epsilon: what two samples of one set differ by is taken off."""
    base, other = _halves("digits", size, seed)
    kinds: tuple[LabelDistance | Literal["none"], ...] = ("gaussian", "none")
    found = {}
    for share in NOISES:
        changed = relabelled(other, share, seed)
        ours, plain = (distance(base, changed, epsilon=WIDE, label_distance=kind).distance for kind in kinds)
        found[share] = ours, plain
    return found


def approximation(size: int, seed: int, tick: Callable[[], None]) -> dict[str, list[float]]:
    """Gaussian against exact label distances over pairs of data sets."""
    digits, other = _halves("digits", size, seed)
    fashion, clothes = _halves("fashion-mnist", size, seed)
    sets = [
        digits,
        other,
        rotated(other, 45),
        inverted(other),
        fashion,
        blurred(clothes),
        original("digits-8x8", size, seed),
    ]
    found: dict[str, list[float]] = {"gaussian": [], "exact": []}
    for i, a in enumerate(sets):
        for b in sets[i + 1 :]:
            for kind in ("gaussian", "exact"):
                found[kind].append(distance(a, b, solver="exact", label_distance=kind).distance)
            tick()
    return found


def label_table_seconds(size: int, seed: int) -> tuple[float, float]:
    """CPU seconds of the Gaussian and of the exact table of class distances, digits against Fashion-MNIST.

    The least of three and of two measurements: the first one of a process also loads libraries.
    """
    a, b = cloud(original("digits", size, seed)), cloud(original("fashion-mnist", size, seed, split="test"))

    def seconds(kind: LabelDistance) -> float:
        began = time.process_time()
        label_tables(a, b, kind)
        return time.process_time() - began

    return min(seconds("gaussian") for _ in range(3)), min(seconds("exact") for _ in range(2))


def _halves(name: str, size: int, seed: int) -> tuple[Dataset, Dataset]:
    split = "all" if name == "digits" else "test"
    both = original(name, 2 * size, seed, split=split)
    return both.select(range(size)), both.select(range(size, 2 * size))
