"""Pictures: the curve of a sweep, the histogram of weights, and the distance against the share of outliers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure as Canvas

from models.core.inputs import Float64

INLIER, OUTLIER, MUTED = "#4c78a8", "#d1495b", "#8a8a8a"
_STYLES = {
    "plain optimal transport": (OUTLIER, "plain"),
    "partial optimal transport": ("#e0a030", "partial (hard removal)"),
    "method": (INLIER, "robust"),
}


def curve_picture(points: Sequence[dict[str, Any]], plain: float, elbow: dict[str, float] | None, path: Path) -> None:
    """Distance with its certified lower bound against the share of outliers that the radius can drop; a PNG."""
    canvas = Canvas(figsize=(7, 4), dpi=120, layout="constrained")
    axes = canvas.subplots()
    shares = [point["outlier_fraction"] for point in points]
    axes.axhline(plain, color=MUTED, linestyle=":", label="plain distance")
    axes.plot(shares, [point["distance"] for point in points], color=INLIER, marker="o", label="robust distance")
    lower = [point["lower_bound"] for point in points]
    axes.plot(shares, lower, color=INLIER, linewidth=0.8, linestyle="--", label="certified lower bound")
    if elbow is not None:
        axes.axvline(elbow["outlier_fraction"], color=OUTLIER, label=f"elbow at {elbow['outlier_fraction']:.2g}")
    axes.set(xlabel="share of outliers that may be dropped", ylabel="distance")
    axes.legend(frameon=False)
    canvas.savefig(path)


def weight_histogram(weights: Float64, truth: npt.NDArray[np.bool_] | None, path: Path) -> None:
    """Histogram of the weights, known outliers apart; a PNG. Counts are on a logarithmic scale."""
    canvas = Canvas(figsize=(7, 4), dpi=120, layout="constrained")
    axes = canvas.subplots()
    edges = np.linspace(0.0, max(1.05, float(weights.max()) * 1.0001), 51).tolist()
    if truth is None:
        axes.hist(weights, edges, color=INLIER)
    else:
        parts, names = [weights[~truth], weights[truth]], ["other samples", "known outliers"]
        axes.hist(parts, edges, color=[INLIER, OUTLIER], label=names, histtype="stepfilled", alpha=0.7)
        axes.legend(frameon=False)
    axes.axvline(1.0, color=MUTED, linestyle=":")
    axes.set(xlabel="weight (1: kept as it is, 0: dropped)", ylabel="samples", yscale="log")
    canvas.savefig(path)


def shares_picture(
    bias: Callable[[str, str], Sequence[float]], kinds: Sequence[str], shares: Sequence[float], path: Path
) -> None:
    """Distance relative to the clean one against the share of outliers, one panel for each kind of them; a PNG.

    Args:
        bias: relative bias over the seeds by subject and setting.
    """
    canvas = Canvas(figsize=(4.2 * len(kinds), 3.4), dpi=120, layout="constrained")
    panels = canvas.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
    for axes, kind in zip(panels, kinds, strict=True):
        axes.axhline(1.0, color=MUTED, linestyle=":", linewidth=1)
        for subject, (colour, name) in _STYLES.items():
            values = [bias(subject, f"{share:.0%} {kind}") for share in shares]
            # Without outliers and with a radius of zero, all three are the plain distance of the clean sides.
            means = [1.0, *(1.0 + float(np.mean(value)) for value in values)]
            spreads = [0.0, *(float(np.std(value, ddof=1)) if len(value) > 1 else 0.0 for value in values)]
            axes.errorbar([0.0, *shares], means, spreads, color=colour, marker="o", capsize=2, label=name)
        axes.set(xlabel="share of outliers", title=f"outliers: {kind}")
        axes.set_xticks([0.0, *shares], [f"{share:.0%}" for share in (0.0, *shares)])
    panels[0].set_ylabel("distance / clean distance")
    panels[0].legend(frameon=False)
    canvas.savefig(path)
