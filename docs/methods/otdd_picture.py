"""Draws ``otdd.png`` beside this file: distances between classes, the coupling they lead to, and transfer."""

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.offsetbox import AnnotationBbox, OffsetImage

from models.core.checkpoint import Checkpoint
from models.core.outputs import Sides
from models.core.transport.clouds import side
from models.otdd.distance import otdd
from models.otdd.proofs import COARSE
from models.otdd.schema import Params
from models.otdd.variants import coarse_digits

ROOT = Path(__file__).parents[2]
SAMPLES = 800
EXCEPTION = "inverted"


def main():
    """Draw the three panels."""
    a, b = coarse_digits("digits", SAMPLES, 0), coarse_digits("digits-8x8", SAMPLES, 0)
    found = otdd(Sides(side(a, COARSE), side(b, COARSE)), Params(solver="exact"))
    table, mass = (np.array(found.details[key]) for key in ("label_distances", "class_coupling"))
    figure = Figure(figsize=(13, 4.4), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    left, middle, right = figure.subplots(1, 3, width_ratios=[1, 1, 1.2])
    draw_matrix(left, table, "viridis", "distance between classes\n(dot: nearest class of the other set)", a, b)
    left.plot(table.argmin(1), range(10), "o", color="white", markersize=4)
    share = mass / mass.sum(1, keepdims=True)
    title = (
        f"mass that the coupling moves between classes\n({np.trace(mass):.0%} stays on the same digit; no names used)"
    )
    draw_matrix(middle, share, "Greens", title, a, b)
    draw_transfer(right)
    figure.savefig(Path(__file__).with_name("otdd.png"))


def draw_matrix(axes, values, colours, title, a, b):
    """A matrix of classes, with each class's mean picture beside it."""
    axes.imshow(values, cmap=colours)
    axes.set_title(title, fontsize=10)
    axes.set(xticks=[], yticks=[])
    axes.set_xlabel("8x8 digits", labelpad=32)
    axes.set_ylabel("MNIST digits", labelpad=26)
    for digit in range(10):
        for dataset, place in ((a, (-1.1, digit)), (b, (digit, 10.1))):
            mean = dataset.inputs[dataset.labels == digit].mean(0)[..., 0]
            picture = OffsetImage(mean, zoom=1.9, cmap="gray_r")
            axes.add_artist(AnnotationBbox(picture, place, frameon=False, annotation_clip=False))


def draw_transfer(axes):
    """Gain of pretraining against distance, for every pair of the stored proof."""
    rows = Checkpoint(ROOT / "models" / "otdd" / "weights").figures.tables["transfer"]
    for target, colour in zip(
        dict.fromkeys(row["target"] for row in rows), ("#2b6ca3", "#c05a2b", "#4c8c4a"), strict=True
    ):
        chosen = [row for row in rows if row["target"] == target]
        for row in chosen:
            marker = "x" if EXCEPTION in row["source"] else "o"
            axes.scatter(row["otdd"], row["gain"], color=colour, marker=marker, s=34)
        axes.scatter([], [], color=colour, label=f"target: {target}")
    axes.scatter([], [], color="grey", marker="x", label="source: inverted pictures")
    axes.axhline(0, color="grey", linewidth=0.6)
    axes.set_title("error that pretraining on a source takes away\n(10 shots, 5 seeds)", fontsize=10)
    axes.set(xlabel="OTDD from source to target", ylabel="relative drop of the target's error")
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    main()
