"""Pictures of the reports: reward, which a policy is tuned to, beside quality, which it should serve."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure as Canvas

from models.core.inputs import Float64

Row = dict[str, float | int | str | None]
_PANELS = (("reward", "reward ±", "reward model"), ("quality G", "quality ±", "quality by the simulated labeller"))


def draw_best_of_n(path: Path, rows: Sequence[Row]) -> None:
    """Reward and quality of the best of n, with 95% intervals; a PNG."""
    canvas = Canvas(figsize=(8, 3.4), layout="constrained")
    for axes, (name, error, title) in zip(canvas.subplots(1, 2), _PANELS, strict=True):
        axes.errorbar(_column(rows, "n"), _column(rows, name), _column(rows, error), marker="o", capsize=3)
        axes.set_xscale("log", base=2)
        axes.set(xlabel="n", ylabel=title)
        axes.spines[["top", "right"]].set_visible(False)
    canvas.savefig(path, dpi=120)


def draw_over_optimization(path: Path, rows: Sequence[Row], best_of_n: Sequence[Row] = ()) -> None:
    """Reward and quality against the root of the divergence, one line a run, with 95% intervals; a PNG.

    Args:
        rows: measurements along runs of PPO.
        best_of_n: drawn black and dashed at the bound of their divergence.
    """
    canvas = Canvas(figsize=(9, 3.8), layout="constrained")
    panels = canvas.subplots(1, 2)
    runs: dict[tuple[float, float, int], list[Row]] = {}
    for row in rows:
        key = float(str(row["beta"])), float(str(row.get("learning rate", 0))), int(str(row.get("seed", 0)))
        runs.setdefault(key, []).append(row)
    colours = {beta: f"C{i}" for i, beta in enumerate(sorted({beta for beta, _, _ in runs}, reverse=True))}
    for (beta, _, _), found in sorted(runs.items(), reverse=True):
        distance = np.sqrt(np.maximum(_column(found, "KL"), 0))
        for axes, (name, error, _title) in zip(panels, _PANELS, strict=True):
            axes.errorbar(
                distance, _column(found, name), _column(found, error), marker=".", color=colours[beta], capsize=2,
                linewidth=1, elinewidth=0.6,
            )  # fmt: skip
    if best_of_n:
        distance = np.sqrt(_column(best_of_n, "KL bound"))
        for axes, (name, error, _title) in zip(panels, _PANELS, strict=True):
            axes.errorbar(
                distance, _column(best_of_n, name), _column(best_of_n, error), marker=".", color="black", capsize=2,
                linewidth=1, elinewidth=0.6, linestyle="--",
            )  # fmt: skip
        panels[0].plot([], [], color="black", linestyle="--", label="best of n")
    for axes, (_name, _error, title) in zip(panels, _PANELS, strict=True):
        axes.set(xlabel="sqrt(KL from the supervised policy)", ylabel=title)
        axes.spines[["top", "right"]].set_visible(False)
    for beta, colour in colours.items():
        panels[0].plot([], [], color=colour, label=f"beta {beta:g}")
    canvas.legend(frameon=False, loc="outside right upper")
    canvas.savefig(path, dpi=120)


def _column(rows: Sequence[Row], name: str) -> Float64:
    return np.array([float(str(row[name])) for row in rows])
