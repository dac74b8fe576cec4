"""One self-contained HTML report of a label check, for a reader who does not know the method."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from models.aum.duplicates import sample_id
from models.aum.pictures import thumbnail
from models.aum.ranking import Ranking
from models.core.dataset import Dataset
from models.core.inputs import Int64

_THUMBNAIL, _SNIPPET = 112, 400
_VOTES = {
    "all": "every run that may judge it puts it below the cut",
    "any": "at least one run that may judge it puts it below the cut",
    "majority": "most of the runs that may judge it put it below the cut",
}
_NOUNS = {"images": "pictures", "vectors": "rows", "text": "texts"}


def write_report(
    path: Path,
    dataset: Dataset,
    labels: Int64,
    ranking: Ranking,
    indices: Sequence[int],
    result: Mapping[str, Any],
    histogram: Path,
    settings: Mapping[str, Any],
) -> None:
    """Render the report of ``result``; every text of the user's is escaped.

    Args:
        indices: suspects that are shown, worst first.
        settings: parameters of the job, shown at the end.
    """
    page = _environment().get_template("report.html").render(
        name=dataset.name or "the data set",
        noun=_NOUNS[dataset.kind],
        kind=dataset.kind,
        classes=len(result["per_class"]),
        headline=headline(result["noise_rate"]),
        noise=result["noise_rate"],
        kept=result["cleaned"]["samples"],
        cleaned_file=result["cleaned"]["artifact"],
        histogram=base64.b64encode(histogram.read_bytes()).decode(),
        suspects=[_suspect(dataset, labels, ranking, index) for index in indices],
        vote_text=_VOTES[settings["vote"]],
        settings=list(settings.items()),
        **{key: result[key] for key in _SHOWN},
    )  # fmt: skip
    path.write_text(page, encoding="utf-8")


_SHOWN = ("samples", "flagged", "confusion", "per_class", "retrain", "duplicates", "warnings")


def headline(noise: Mapping[str, Any]) -> str:
    """The finding in one sentence."""
    if noise["estimate"] < 0.005:
        return "Hardly any label looks wrong"
    return f"About {_percent(noise['estimate'])} of the labels look wrong"


def _suspect(dataset: Dataset, labels: Int64, ranking: Ranking, index: int) -> dict[str, Any]:
    suggestion = int(ranking.suggested[index])
    shown: dict[str, Any] = {
        "id": sample_id(dataset, index),
        "label": dataset.class_names[labels[index]],
        "suggested": dataset.class_names[suggestion] if suggestion >= 0 else None,
        "aum": float(ranking.aum[index]),
    }
    item: Any = dataset.inputs[index]
    if dataset.kind == "images":
        small = max(item.shape[:2]) <= _THUMBNAIL
        buffer = io.BytesIO()
        thumbnail(item, max(item.shape[:2]) if small else _THUMBNAIL).save(buffer, "PNG", optimize=True)
        return shown | {"picture": base64.b64encode(buffer.getvalue()).decode(), "small": small}
    if dataset.kind == "vectors":
        values = ", ".join(f"{value:.4g}" for value in np.asarray(item)[:12])
        return shown | {"text": values + (", …" if len(item) > 12 else "")}
    return shown | {"text": item if len(item) <= _SNIPPET else item[:_SNIPPET] + "…"}


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"percent": _percent, "percent1": lambda share: f"{share:.1%}", "signed": _signed}
    return environment


def _percent(share: float) -> str:
    return f"{share:.1%}" if 0 < share < 0.095 else f"{share:.0%}"


def _signed(difference: float) -> str:
    """A difference of shares in percentage points, with a true minus sign."""
    return f"{100 * difference:+.1f}".replace("-", "\N{MINUS SIGN}")
