"""Pictures of a ranking: the histogram of AUM and the contact sheet of suspects."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from models.aum.folds import FoldRuns
from models.aum.ranking import Ranking
from models.core.dataset import Dataset
from models.core.inputs import Int64, UInt8

KEPT, SUSPECT, THRESHOLD, INK, MUTED = "#4c78a8", "#d1495b", "#8a8a8a", "#1b1f24", "#5b6470"
SHEET_COLUMNS, SHEET_ROWS = 8, 8
_TILE, _GAP, _LINE = 112, 14, 17


def draw_histogram(path: Path, ranking: Ranking, runs: FoldRuns) -> None:
    """AUM of kept samples and suspects, stacked, with the threshold samples' and the cuts; a PNG."""
    judged = ranking.eligible > 0
    kept, suspect = ranking.aum[judged & ~ranking.suspect], ranking.aum[judged & ranking.suspect]
    thresholds = np.concatenate([row[chosen] for row, chosen in zip(runs.aum, runs.sets, strict=True)])
    low, high = np.percentile(np.concatenate([ranking.aum[judged], thresholds]), [0.05, 99.95])
    edges = np.linspace(low, high, 61).tolist()
    figure = Figure(figsize=(9, 4.2), dpi=140, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    clipped = [np.clip(values, low, high) for values in (kept, suspect)]
    axes.hist(clipped, edges, stacked=True, color=[KEPT, SUSPECT],
              label=[f"kept ({len(kept):,})", f"suspect ({len(suspect):,})"])  # fmt: skip
    weights = np.full(len(thresholds), int(judged.sum()) / len(thresholds) / 4)
    axes.hist(np.clip(thresholds, low, high), edges, weights=weights, histtype="step", color=INK, linewidth=1.4,
              label="threshold samples (certainly mislabeled, scaled)")  # fmt: skip
    for number, threshold in enumerate(ranking.thresholds):
        axes.axvline(threshold, color=INK, linestyle="--", linewidth=1, label=None if number else "cut of each fold")
    axes.set_xlabel("area under the margin (AUM): left of zero, the network preferred another label")
    axes.set_ylabel("samples")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    figure.savefig(path)


def draw_contact_sheet(path: Path, dataset: Dataset, labels: Int64, ranking: Ranking, indices: Sequence[int]) -> None:
    """The pictures at ``indices`` with their assigned and suggested labels, eight in a row; a PNG."""
    width = SHEET_COLUMNS * (_TILE + _GAP) + _GAP
    cell = _TILE + 2 * _LINE + _GAP + 4
    rows = -(-len(indices) // SHEET_COLUMNS)
    header = 46
    sheet = Image.new("RGB", (width, header + rows * cell + _GAP // 2), "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((_GAP, 9), f"The {len(indices)} samples with the lowest area under the margin, worst first",
              fill=INK, font=_font(15, bold=True))  # fmt: skip
    draw.text((_GAP, 28), "grey: label as given; red: label that the network would give",
              fill=MUTED, font=_font(11))  # fmt: skip
    for place, index in enumerate(indices):
        left = _GAP + place % SHEET_COLUMNS * (_TILE + _GAP)
        top = header + place // SHEET_COLUMNS * cell
        sheet.paste(thumbnail(dataset.inputs[index], _TILE), (left, top))  # type: ignore[arg-type]
        draw.rectangle((left, top, left + _TILE - 1, top + _TILE - 1), outline="#c9ced6")
        suggestion = int(ranking.suggested[index])
        captions = [(dataset.class_names[labels[index]], MUTED)]
        captions += [(dataset.class_names[suggestion] + "?", SUSPECT)] if suggestion >= 0 else []
        for line, (caption, colour) in enumerate(captions):
            font = _font(12, bold=line == 1)
            draw.text((left, top + _TILE + 3 + line * _LINE), _shorten(caption, font, _TILE), fill=colour, font=font)
    sheet.save(path)


def thumbnail(image: UInt8, side: int) -> Image.Image:
    """A picture ``(h, w, 1|3|4)`` inside a square of ``side`` pixels, aspect kept; small ones keep sharp pixels."""
    picture = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).convert("RGB")
    scale = side / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    resample = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    canvas = Image.new("RGB", (side, side), "#f2f4f7")
    canvas.paste(picture.resize(size, resample), ((side - size[0]) // 2, (side - size[1]) // 2))
    return canvas


@cache
def _font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(mpl.get_data_path()) / "fonts" / "ttf" / name, size)


def _shorten(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    text = " ".join(text.split())
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"
