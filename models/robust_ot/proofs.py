"""The distance's proofs: it stays near the clean value, weights rank outliers, and rankings of data sets are kept."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import ot
from scipy.ndimage import rotate

from models.core import sources
from models.core.inputs import Float64, ImageSpec
from models.core.outputs import Side, Sides
from models.core.transport.clouds import points
from models.core.transport.costs import ground_cost
from models.robust_ot.bounds import protecting_radius
from models.robust_ot.distance import plain_transport, robust_distance, transport
from models.robust_ot.entropic import RobustProblem
from models.robust_ot.pollution import area_under_roc, pollute
from models.robust_ot.schema import Ground, Params

SHARES = (0.05, 0.1, 0.2)
GROUND = Ground(tolerance=2e-3)
PICTURES = ImageSpec(height=28, width=28, channels=1)
ANGLES = (0, 10, 20, 30, 45)
_DEFAULT_SHARE = 0.05


@dataclass
class Measured:
    """Values by ``(quantity, subject, setting)``, one a seed."""

    values: dict[tuple[str, str, str], list[float]] = field(default_factory=lambda: defaultdict(list))

    def add(self, quantity: str, subject: str, setting: str, value: float) -> None:
        """Append one seed's value."""
        self.values[quantity, subject, setting].append(float(value))

    def mean(self, quantity: str, subject: str, setting: str) -> float:
        """Mean over the seeds."""
        return float(np.mean(self.values[quantity, subject, setting]))


def digit_clouds(size: int, seed: int) -> tuple[Float64, Float64]:
    """Two disjoint draws of handwritten digits, ``(size, 784)`` in [0, 1] each."""
    pictures = points(sources.load("digits", "all"))
    chosen = np.random.default_rng(seed).permutation(len(pictures))[: 2 * size]
    return pictures[chosen[:size]], pictures[chosen[size:]]


def junk_pictures() -> Float64:
    """Fashion-MNIST's test pictures, ``(10000, 784)`` in [0, 1]."""
    return points(sources.load("fashion-mnist", "test"))


def inflation_and_ranking(
    clean: Float64, trusted: Float64, junk: dict[str, Float64 | None], seed: int, measured: Measured
) -> None:
    """Proofs (a) and (b) for one seed: pollute ``clean`` and compare with ``trusted``.

    Distances are recorded relative to plain transport between the clean sides, so 0 is perfect.
    """
    a = np.full(len(clean), 1.0 / len(clean))
    b = np.full(len(trusted), 1.0 / len(trusted))
    cost = ground_cost(clean, trusted, p=1)
    plain = plain_transport(cost, a, b, GROUND)
    clean_problem = RobustProblem(cost, a, b, protecting_radius(_DEFAULT_SHARE), 0.0)
    robust = transport(clean_problem, GROUND, plain)
    measured.add("clean distance", "plain optimal transport", "clean", plain.upper)
    measured.add("relative bias", "method", "clean, outlier_fraction 0.05", robust.upper / plain.upper - 1.0)
    rng = np.random.default_rng(seed)
    for kind, pictures in junk.items():
        for share in SHARES:
            dirty = pollute(clean, pictures, share, rng)
            cost = ground_cost(dirty.points, trusted, p=1)
            _compare(cost, a, b, dirty.outlier, f"{share:.0%} {kind}", share, plain.upper, measured)


def _compare(
    cost: Float64,
    a: Float64,
    b: Float64,
    outlier: npt.NDArray[np.bool_],
    setting: str,
    share: float,
    reference: float,
    measured: Measured,
) -> None:
    plain = plain_transport(cost, a, b, GROUND)
    found = transport(RobustProblem(cost, a, b, protecting_radius(share), 0.0), GROUND, plain)
    # As floating-point numbers, the weights of b may add up to a little less than one; POT refuses to move more.
    partial = ot.partial.partial_wasserstein(a / (1.0 - share), b, cost, m=min(1.0, float(b.sum())))
    kept = partial.sum(axis=1)
    for subject, value in (
        ("method", found.upper),
        ("plain optimal transport", plain.upper),
        ("partial optimal transport", float(np.vdot(partial, cost))),
    ):
        measured.add("relative bias", subject, setting, value / reference - 1.0)
    for subject, score in (
        ("method", -found.weights_a),
        ("partial optimal transport", -kept),
        ("nearest neighbour", cost.min(axis=1)),
    ):
        measured.add("outlier AUROC", subject, setting, area_under_roc(score, outlier))
    measured.add("gap", "method", setting, found.gap)
    measured.add("mean weight of outliers", "method", setting, float(found.weights_a[outlier].mean()))
    measured.add("mean weight of inliers", "method", setting, float(found.weights_a[~outlier].mean()))


def ranking_of_datasets(size: int, seed: int, measured: Measured, tick: Callable[[], None]) -> None:
    """Proof (e) for one seed: rank turned copies of digits by their labelled distance to upright digits.

    One candidate at a time is polluted by 10% noise with random labels; a ranking that differs from the one of the
    clean candidates counts as changed.
    """
    digits = sources.load("digits", "all")
    chosen = np.random.default_rng(seed).permutation(len(digits))
    target = digits.select(chosen[:size])
    reference = Side(points(target, PICTURES), labels=target.require_labels())
    rng = np.random.default_rng(seed)
    clean, dirty = [], []
    for position, angle in enumerate(ANGLES):
        drawn = digits.select(chosen[(position + 1) * size : (position + 2) * size])
        pictures = rotate(drawn.images(PICTURES)[..., 0] / 255.0, angle, axes=(2, 1), reshape=False, order=1)
        turned, labels = np.clip(pictures.reshape(size, -1), 0.0, 1.0), drawn.require_labels()
        polluted = pollute(turned, None, 0.1, rng)
        mixed = np.where(polluted.outlier, rng.integers(0, 10, size), labels)
        clean.append(Side(turned, labels=labels))
        dirty.append(Side(polluted.points, labels=mixed))
    for subject, fraction in (("method", 0.1), ("labelled optimal transport", 0.0)):
        params = Params(p=2, labelled=True, outlier_fraction_a=fraction, tolerance=5e-3)
        before, after = [], []
        for first, second in zip(clean, dirty, strict=True):
            before.append(robust_distance(Sides(first, reference), params).distance)
            after.append(robust_distance(Sides(second, reference), params).distance)
            tick()
        kept = [_same_order(before, position, value) for position, value in enumerate(after)]
        measured.add("rankings kept", subject, "10% noise in one of 5 candidates", float(np.mean(kept)))
        growth = np.mean(np.asarray(after) / np.asarray(before)) - 1.0
        measured.add("labelled distance growth", subject, "10% noise in one of 5 candidates", float(growth))


def _same_order(before: list[float], position: int, value: float) -> bool:
    changed = [*before[:position], value, *before[position + 1 :]]
    return bool((np.argsort(before) == np.argsort(changed)).all())


def settings(measured: Measured, quantity: str, subject: str = "method") -> Iterator[str]:
    """The settings that ``quantity`` was measured in."""
    return (found[2] for found in measured.values if found[:2] == (quantity, subject))
