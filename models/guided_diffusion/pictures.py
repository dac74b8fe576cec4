"""Contact sheets of samples, and the trade of guidance."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from models.core.inputs import UInt8
from models.core.outputs import Draw
from models.core.run import Run
from models.guided_diffusion.schema import Params

if TYPE_CHECKING:
    from models.guided_diffusion.method import GuidedDiffusion

GAP = 2
ENLARGED = 2
A_CLASS = 8
SHOWN_CLASSES = 20


def sheet(pictures: UInt8, columns: int) -> Image.Image:
    """Pictures uint8 ``(N, H, W, C)`` in rows of ``columns``, twice their size."""
    count, height, width, channels = pictures.shape
    rows = -(-count // columns)
    canvas = np.full((rows * (height + GAP), columns * (width + GAP), channels), 255, dtype=np.uint8)
    for position, picture in enumerate(pictures):
        top, left = position // columns * (height + GAP), position % columns * (width + GAP)
        canvas[top : top + height, left : left + width] = picture
    image = Image.fromarray(canvas[:, :, 0] if channels == 1 else canvas)
    return image.resize((ENLARGED * image.width, ENLARGED * image.height), Image.Resampling.NEAREST)


def draw_samples(method: GuidedDiffusion, params: Params, path: Path, run: Run) -> None:
    """A row of eight pictures for each class (the first twenty)."""
    pictures = []
    classes = range(min(SHOWN_CLASSES, len(method.networks.class_names)))
    for label in classes:
        run.progress(0.95 + 0.05 * label / len(classes), "draw samples", method.networks.class_names[label])
        drawn = method.predict([Draw(label, seed) for seed in range(A_CLASS)], params)
        pictures += [output.image for output in drawn]
    sheet(np.stack(pictures), A_CLASS).save(path)


def draw_trade_off(rows: list[dict[str, float]], path: Path) -> None:
    """What each guidance scale costs and gains: shares on the left axis, FID on the right one."""
    figure = Figure(figsize=(5.6, 3.4), layout="constrained")
    axes = figure.add_subplot()
    distance = axes.twinx()
    scales = [f"{row['guidance_scale']:g}" for row in rows]
    for name in ("consistency", "precision", "recall"):
        axes.plot(scales, [row[name] for row in rows], marker="o", label=name)
    distance.plot(scales, [row["fid"] for row in rows], marker="s", color="0.5", linestyle="--", label="FID (right)")
    axes.set(xlabel="guidance scale", ylim=(0, 1.02))
    distance.set(ylabel="FID, the judge's features", ylim=(0, None))
    lines = [*axes.get_lines(), *distance.get_lines()]
    axes.legend(lines, [str(line.get_label()) for line in lines], fontsize=8, loc="lower right")
    figure.savefig(path, dpi=110)
