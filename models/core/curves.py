"""The picture of a training's curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

COLUMNS = 3
DOTTED = 40  # points; with more the dots are a smear


def draw_curves(curves: Mapping[str, Sequence[tuple[int, float | None]]], path: Path) -> None:
    """Draw every metric over its steps into a PNG at ``path``, one panel a metric.

    Args:
        curves: points ``(step, value)`` by metric; a value that was not finite is None and leaves a gap.
    """
    columns = min(COLUMNS, max(1, len(curves)))
    rows = max(1, -(-len(curves) // columns))
    figure = Figure(figsize=(4 * columns, 2.6 * rows), layout="constrained")
    for position, (name, points) in enumerate(curves.items(), 1):
        axes = figure.add_subplot(rows, columns, position)
        steps, values = [step for step, _ in points], [float("nan") if y is None else y for _, y in points]
        axes.plot(steps, values, linewidth=1.2, marker="." if len(points) < DOTTED else "")
        axes.set_title(name.replace("_", " "), fontsize=9)
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)
