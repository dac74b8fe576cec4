"""Pictures of trainings on wrong labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

BLUE, RED, GREEN, GREY = "#4c78a8", "#d1495b", "#59a14f", "#8a8a8a"
LINES = {
    "train_accuracy": ("training labels, as given", GREY),
    "validation_accuracy": ("held-out labels, as given", BLUE),
    "fit_clean": ("right training labels", GREEN),
    "fit_corrupt": ("wrong training labels", RED),
    "test": ("clean test labels", "#1b1f24"),
}


def draw_robustness(path: Path, trainings: Mapping[str, Mapping[str, Any]]) -> None:
    """What is fitted over the epochs, a panel a training, with the epoch that the rule chose; a PNG."""
    figure = Figure(figsize=(4.2 * len(trainings), 3.9), layout="constrained")
    panels = figure.subplots(1, len(trainings), squeeze=False, sharey=True)[0]
    for axes, (name, row) in zip(panels, trainings.items(), strict=True):
        _panel(axes, row["curve"], row["epoch"])
        axes.set_title(name)
    panels[0].set_ylabel("share fitted")
    handles: dict[str, Any] = {}
    for axes in panels:
        handles |= {line.get_label(): line for line in axes.get_lines()}
    figure.legend(
        list(handles.values()), list(handles), frameon=False, fontsize=8, ncol=len(handles), loc="outside lower center"
    )
    figure.savefig(path, dpi=110)


def _panel(axes: Axes, curve: Sequence[Mapping[str, Any]], chosen: int) -> None:
    epochs = [row["epoch"] for row in curve]
    for name, (label, colour) in LINES.items():
        if curve[0].get(name) is not None:
            axes.plot(epochs, [row[name] for row in curve], color=colour, label=label, linewidth=1.6)
    axes.axvline(chosen, color=RED, linestyle="--", linewidth=1, label="kept epoch")
    axes.set(xlabel="epoch", ylim=(-0.02, 1.02))
    axes.spines[["top", "right"]].set_visible(False)
