"""Pictures of distances: drift curves, gain against distance, and the heat map of a distance matrix."""

from __future__ import annotations

from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure as Canvas

from models.core.inputs import Float64

Curve = dict[float, tuple[float, float]]


def drift_picture(curves: tuple[Curve, Curve], path: Path) -> None:
    """Both distances against rotation and against the share of wrong labels."""
    canvas = Canvas(figsize=(8, 3.2), layout="constrained")
    titles = ("rotation (degrees)", "share of wrong labels")
    for axes, curve, title in zip(canvas.subplots(1, 2), curves, titles, strict=True):
        steps = sorted(curve)
        for which, name in enumerate(("OTDD", "W2 without labels")):
            axes.plot(steps, [curve[step][which] / curve[steps[0]][which] for step in steps], marker="o", label=name)
        axes.set(xlabel=title, ylabel="distance / distance without change")
        axes.legend(frameon=False)
    canvas.savefig(path, dpi=120)


def transfer_picture(rows: list[dict[str, Any]], path: Path) -> None:
    """Relative drop of the target's error against the distance of the source: targets by colour, sources by marker."""
    canvas = Canvas(figsize=(8, 4), layout="constrained")
    axes = canvas.subplots()
    colours = {target: f"C{i}" for i, target in enumerate(sorted({row["target"] for row in rows}))}
    markers = dict(zip(sorted({row["source"] for row in rows}), cycle("osD^vPX*"), strict=False))
    for row in rows:
        axes.scatter(row["otdd"], row["gain"], color=colours[row["target"]], marker=markers[row["source"]], s=45)
    axes.axhline(0, color="grey", linewidth=0.6)
    axes.set(xlabel="OTDD from source to target", ylabel="relative drop of the error by pretraining")
    for target, colour in colours.items():
        axes.scatter([], [], color=colour, marker="s", label=f"target: {target}")
    for source, marker in markers.items():
        axes.scatter([], [], color="none", edgecolor="black", marker=marker, label=f"source: {source}")
    canvas.legend(frameon=False, fontsize=8, loc="outside right upper")
    canvas.savefig(path, dpi=120)


def heat_map(distances: Float64, names: list[str], path: Path) -> None:
    """A distance matrix ``(K, K)`` with its values written in."""
    size = 2.5 + 0.75 * len(names)
    canvas = Canvas(figsize=(size + 1, size), layout="constrained")
    axes = canvas.subplots()
    drawn = axes.imshow(distances, cmap="viridis_r")
    short = [name if len(name) <= 24 else f"{name[:23]}…" for name in names]
    axes.set_xticks(range(len(names)), short, rotation=45, ha="right")
    axes.set_yticks(range(len(names)), short)
    middle = (np.nanmin(distances) + np.nanmax(distances)) / 2
    for (i, j), value in np.ndenumerate(distances):
        axes.text(j, i, f"{value:.3g}", ha="center", va="center", color="white" if value > middle else "black")
    canvas.colorbar(drawn, label="OTDD")
    canvas.savefig(path, dpi=120)
