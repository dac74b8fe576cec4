"""Tables as CSV that a spreadsheet may open."""

from __future__ import annotations

import math
from pathlib import Path

import pyarrow as pa
import pyarrow.csv

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def write_csv(table: pa.Table, path: Path) -> None:
    """Write ``table``; texts that a spreadsheet would run as a formula get a leading apostrophe."""
    columns = [
        pa.array([None if text is None else neutralise(text) for text in column.to_pylist()], pa.string())
        if pa.types.is_string(column.type)
        else column
        for column in table.columns
    ]
    pyarrow.csv.write_csv(pa.table(dict(zip(table.column_names, columns, strict=True))), path)


def neutralise(text: str) -> str:
    """``text`` with an apostrophe in front when a spreadsheet would take it for a formula; numbers stay as they are."""
    if not text.lstrip(" ").startswith(_FORMULA):
        return text
    try:
        return text if math.isfinite(float(text)) else "'" + text
    except ValueError:
        return "'" + text
