"""The picture of the proof, drawn with matplotlib into one PNG file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from models.align_uniform import metrics
from models.align_uniform.findings import Table, by_group
from models.align_uniform.pictures import circle_map
from models.align_uniform.proof import Row
from models.core.inputs import Int64

BARS = {
    "align-uniform": "align + uniform",
    "simclr-tau-0.2": "SimCLR, τ = 0.2",
    "simclr-tau-0.5": "SimCLR, τ = 0.5",
    "align-uniform-batch-64": "align + uniform, batches of 64",
    "simclr-batch-64": "SimCLR, τ = 0.2, batches of 64",
    "align-uniform-batch-32": "align + uniform, batches of 32",
    "simclr-batch-32": "SimCLR, τ = 0.2, batches of 32",
    "align-only": "align only",
    "uniform-only": "uniform only",
    "random encoder": "random encoder",
    "raw pixels": "raw pixels (784)",
    "raw pixels, PCA 64": "PCA of pixels (64)",
    "supervised": "supervised",
}
UNMAPPED = ("circle", "random encoder")
Arcs = tuple[Tensor, Int64, list[str]]


def draw_plane(axes: Axes, rows: Sequence[Row]) -> None:
    """Each encoder in the (L_align, L_uniform) plane, coloured by its linear-probe accuracy."""
    shown = [row for row in rows if row.align is not None and row.group not in UNMAPPED]
    accuracy = [100 * row.linear for row in shown]
    plane = np.array([(row.align, row.uniform) for row in shown], dtype=float)
    points = axes.scatter(
        plane[:, 0],
        plane[:, 1],
        c=accuracy,
        vmin=max(accuracy) - 5,
        cmap="viridis",
        s=36,
        edgecolor="0.3",
        linewidth=0.4,
    )
    axes.figure.colorbar(points, ax=axes, label="linear probe accuracy, %", extend="min")
    named = {"align-uniform": "both losses", "align-only": "align only", "uniform-only": "uniform only"}
    for group in dict.fromkeys(row.group for row in shown):
        first = next(row for row in shown if row.group == group)
        text = named.get(group, group.replace("simclr-tau-", "SimCLR τ=") if group.startswith("simclr-tau") else "")
        axes.annotate(text, tuple(plane[shown.index(first)]), xytext=(5, 3), textcoords="offset points", fontsize=7)
    axes.set_xlabel("L_align on held-out pairs (lower: views of a picture are close)")
    axes.set_ylabel("L_uniform (lower: evenly spread)")
    axes.set_title("Accuracy in the plane of the two metrics", fontsize=10)


def draw_theorem(axes: Axes, circle: Table, features: Table) -> None:
    """Deviation from Theorem 1's limit against the number of negatives."""
    for table, name, mark in ((circle, "uniform law on the circle", "o-"), (features, "shipped encoder", "s-")):
        points = [(point["M"], abs(float(point["deviation"] or 0))) for point in table]
        axes.loglog([m for m, _ in points], [d for _, d in points], mark, label=name, markersize=4)
    counts = np.array([float(point["M"] or 1) for point in circle])
    start = abs(float(circle[0]["deviation"] or 1))
    axes.loglog(
        counts, 1.5 * start * np.sqrt(counts[0] / counts), "--", color="0.5", label="slope of the bound, M^-1/2"
    )
    axes.set_xlabel("negatives M")
    axes.set_ylabel("|loss - log M - limit|")
    axes.set_title("Theorem 1: the contrastive loss tends to the two terms", fontsize=10)
    axes.legend(frameon=False, fontsize=8)


def draw_bars(axes: Axes, groups: Mapping[str, Sequence[Row]], titles: Mapping[str, str], title: str) -> None:
    """Linear probe with all and with 1% of the labels, by group, with the range over seeds."""
    shown = {name: title for name, title in titles.items() if name in groups}
    position = np.arange(len(shown))
    for offset, measure, name in ((-0.2, "linear", "all labels"), (0.2, "low1", "1% of the labels")):
        found = [[100 * getattr(row, measure) for row in groups[group]] for group in shown]
        values = [float(np.mean(seeds)) for seeds in found]
        bars = axes.barh(position + offset, values, 0.38, label=name)
        ranges = [[value - min(s) for value, s in zip(values, found, strict=True)]]
        ranges.append([max(s) - value for value, s in zip(values, found, strict=True)])
        axes.errorbar(values, position + offset, xerr=ranges, fmt="none", ecolor="0.2", elinewidth=0.8)
        axes.bar_label(bars, fmt="%.1f", fontsize=7, padding=2)
    axes.set_yticks(position, list(shown.values()), fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(20, 100)
    axes.set_xlabel("accuracy of a linear probe, %")
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(0.0, -0.1), ncols=2)
    axes.set_title(title, fontsize=10)


def draw_classes(axes: Axes, rows: Tensor, labels: Int64, class_names: list[str]) -> None:
    """Each class on the circle of an encoder with two dimensions."""
    angles = metrics.circle_angles(rows)
    for label, name in enumerate(class_names):
        circle_map(axes, angles[labels == label], f"C{label}", name)
    axes.legend(fontsize=6, frameon=False, loc="center")
    axes.set_title("feat_dim = 2: each class is an arc", fontsize=10)


def draw_proof(path: Path, rows: Sequence[Row], circle: Table, features: Table, arcs: Arcs | None) -> None:
    """The four panels of the documentation's picture."""
    figure = Figure(figsize=(11.5, 9.6), layout="constrained")
    grid = figure.subplots(2, 2)
    draw_plane(grid[0, 0], rows)
    draw_bars(grid[0, 1], by_group(rows), BARS, "Equal steps, equal encoder")
    draw_theorem(grid[1, 1], circle, features)
    grid[1, 0].set_axis_off()
    if arcs is not None:
        draw_classes(grid[1, 0], *arcs)
    figure.savefig(path, format="png", dpi=100)


def draw_texts(path: Path, rows: Sequence[Row]) -> None:
    """Accuracies on the sections of package descriptions, by kind of vectors."""
    figure = Figure(figsize=(7, 3.8), layout="constrained")
    groups = by_group(rows)
    draw_bars(figure.subplots(), groups, {name: name for name in groups}, "Sections of package descriptions")
    figure.savefig(path, format="png", dpi=100)
