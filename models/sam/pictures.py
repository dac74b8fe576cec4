"""Pictures of the jobs and of the proof."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from models.core.inputs import Float64
from models.core.parts import Row

BLUE, RED, GREY = "#4c78a8", "#d1495b", "#8a8a8a"


def draw_landscape(path: Path, positions: Float64, plane: Float64) -> None:
    """The slice along the first direction and the plane as contours; a PNG."""
    figure = Figure(figsize=(8.6, 3.6), layout="constrained")
    line, contours = figure.subplots(1, 2)
    line.plot(positions, plane[len(positions) // 2], color=BLUE)
    line.set(xlabel="position, in norms of each filter", ylabel="loss", title="one random direction")
    line.spines[["top", "right"]].set_visible(False)
    finite = np.nan_to_num(plane, nan=np.nanmax(plane))
    drawn = contours.contourf(positions, positions, finite, levels=20, cmap="viridis")
    contours.plot(0, 0, marker="+", color="white", markersize=9)
    contours.set(xlabel="first direction", ylabel="second direction", title="a plane", aspect="equal")
    figure.colorbar(drawn, ax=contours, label="loss")
    figure.savefig(path, dpi=110)


def draw_search(path: Path, rows: Sequence[Row], chosen: float | None) -> None:
    """Accuracy on the held-out part and on the training part over the radius; a PNG."""
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.add_subplot()
    grid = sorted({float(row["rho"] or 0) for row in rows})
    places = {rho: place for place, rho in enumerate(grid)}
    for name, colour in (("validation_accuracy", RED), ("training_accuracy", BLUE)):
        kept = [row for row in rows if row[name] is not None]
        at = [places[float(row["rho"] or 0)] for row in kept]
        values = [float(row[name] or 0) for row in kept]
        axes.plot(at, values, "o", color=colour, alpha=0.7, label=name.replace("_", " "))
        used = sorted(set(at))
        means = [np.mean([v for a, v in zip(at, values, strict=True) if a == place]) for place in used]
        axes.plot(used, means, color=colour, linewidth=1)
    if chosen is not None:
        axes.axvline(places[chosen], color=GREY, linestyle="--", linewidth=1, label="chosen")
    axes.set_xticks(range(len(grid)), [f"{rho:g}" for rho in grid])
    axes.set(xlabel="rho", ylabel="accuracy, labels as given")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=110)


def draw_proof(path: Path, table: Sequence[Mapping[str, float | int | str | None]]) -> None:
    """Accuracy at the end and at the best epoch, and the sharpness, of each arm; a PNG."""
    figure = Figure(figsize=(9.6, 3.8), layout="constrained")
    accuracy, sharpness = figure.subplots(1, 2, sharey=True)
    names = [str(row["arm"]) for row in table]
    places = np.arange(len(names))
    best, final, largest = ([float(row[key] or 0) for row in table] for key in ("best", "final", "lambda_max"))
    accuracy.barh(places, best, 0.7, color="#d9e2ec", label="best epoch (chosen on the test set)")
    colours = [RED if name.startswith("SAM") else GREY for name in names]
    accuracy.barh(places, final, 0.45, color=colours, label="last epoch")
    accuracy.set_yticks(places, names)
    accuracy.invert_yaxis()
    accuracy.set(xlim=(0.5, 0.85), xlabel="accuracy on the clean test set")
    accuracy.legend(frameon=False, fontsize=8, loc="upper center", bbox_to_anchor=(0.4, 1.16), ncol=2)
    sharpness.barh(places, largest, 0.45, color=colours)
    sharpness.set(xlabel="largest eigenvalue of the Hessian")
    for axes in (accuracy, sharpness):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)
