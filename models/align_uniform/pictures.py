"""Pictures of embeddings, drawn with matplotlib into PNG files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from models.align_uniform import metrics
from models.core.inputs import Float64, Int64

CIRCLE = np.linspace(-np.pi, np.pi, 361)
SHOWN_CLASSES = 12


def circle_map(axes: Axes, angles: Float64, colour: Any = "tab:blue", label: str | None = None) -> None:
    """Density of ``angles`` around the unit circle, as the band between the circle and its height."""
    density = metrics.angle_density(angles, CIRCLE)
    radius = 1 + 0.6 * density / max(density.max(), 1e-9)
    axes.fill(
        np.concatenate([radius * np.cos(CIRCLE), np.cos(CIRCLE[::-1])]),
        np.concatenate([radius * np.sin(CIRCLE), np.sin(CIRCLE[::-1])]),
        color=colour,
        alpha=0.55,
        linewidth=0,
        label=label,
    )
    axes.plot(np.cos(CIRCLE), np.sin(CIRCLE), color="0.4", linewidth=0.6)
    axes.set_aspect("equal")
    axes.set_axis_off()


def draw_circle(path: Path, rows: Tensor, labels: Int64 | None, class_names: list[str]) -> None:
    """The rows on the circle (2-D re-projection), all of them and class by class (the 12 largest)."""
    angles = metrics.circle_angles(rows)
    shown: list[int] = []
    if labels is not None:
        counts = np.bincount(labels, minlength=len(class_names))
        shown = [int(label) for label in np.argsort(-counts, kind="stable")[:SHOWN_CLASSES] if counts[label]]
    columns = min(4, 1 + len(shown))
    lines = -(-(1 + len(shown)) // columns)
    figure = Figure(figsize=(2.4 * columns, 2.6 * lines), layout="constrained")
    grid = np.asarray(figure.subplots(lines, columns, squeeze=False)).ravel()
    for axes in grid:
        axes.set_axis_off()
    circle_map(grid[0], angles, "0.3")
    grid[0].set_title(f"all {len(rows)}", fontsize=9)
    for position, label in enumerate(shown, start=1):
        circle_map(grid[position], angles[labels == label], f"C{(position - 1) % 10}")
        grid[position].set_title(class_names[label], fontsize=9)
    figure.savefig(path, format="png", dpi=110)


def draw_distances(path: Path, positive: Float64, rows: Tensor) -> None:
    """Histogram of the distances of positive pairs beside those of random pairs."""
    shuffled = rows[np.random.default_rng(0).permutation(len(rows))]
    random = (rows - shuffled).norm(dim=1).numpy()
    figure = Figure(figsize=(6, 3), layout="constrained")
    axes = figure.subplots()
    bins = list(np.linspace(0, 2, 41))
    axes.hist(random[random > 0], bins, density=True, alpha=0.5, color="0.5", label="random pairs")
    axes.hist(positive, bins, density=True, alpha=0.6, color="tab:blue", label="positive pairs")
    axes.set_xlabel("Euclidean distance on the unit sphere")
    axes.set_ylabel("density")
    axes.legend(frameon=False)
    figure.savefig(path, format="png", dpi=110)
