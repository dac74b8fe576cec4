"""JSON Lines: one object a line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa

from models.core.datasets.columns import choose_columns
from models.core.datasets.errors import DatasetError
from models.core.datasets.options import DatasetOptions, Limits, Parsed
from models.core.datasets.parquet import first_line
from models.core.datasets.table import table_to_dataset

_BATCH = 8192


def parse(path: Path, options: DatasetOptions, limits: Limits) -> Parsed:
    """Read a JSON Lines file; empty lines are skipped and not counted.

    Raises:
        DatasetError: a line is not a JSON object, a column mixes types, or as ``table_to_dataset``.
    """
    tables, rows, start, size = [], [], 0, 0
    for row, line in enumerate(records(path)):
        rows.append(_object(line, row))
        size += len(line)
        if size > limits.decompressed_bytes:
            raise DatasetError(f"the file holds more than {limits.decompressed_bytes} bytes", row=row)
        if row >= limits.samples:
            raise DatasetError(f"the file has more than {limits.samples} rows")
        if len(rows) == _BATCH:
            tables.append(_table(rows, start))
            rows, start = [], row + 1
    if rows:
        tables.append(_table(rows, start))
    if not tables:
        raise DatasetError("the file has no rows")
    try:
        table = pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        raise DatasetError(f"the rows have values of different types: {first_line(error)}") from error
    columns = choose_columns(table.schema, options)
    return table_to_dataset(table, columns, options, limits)


def records(path: Path) -> Iterator[bytes]:
    """The lines that hold a row, with their line ends."""
    with path.open("rb") as file:
        for line in file:
            if line.strip():
                yield line


def _object(line: bytes, row: int) -> dict[str, Any]:
    try:
        value = orjson.loads(line.removeprefix(b"\xef\xbb\xbf") if row == 0 else line)
    except orjson.JSONDecodeError as error:
        raise DatasetError(f"not JSON: {error.msg} at column {error.colno}", row=row) from error
    if not isinstance(value, dict):
        raise DatasetError(f"a JSON object is expected, not {type(value).__name__}", row=row)
    return value


def _table(rows: list[dict[str, Any]], start: int) -> pa.Table:
    names = list(dict.fromkeys(name for row in rows for name in row))
    return pa.table({name: _column(name, [row.get(name) for row in rows], start) for name in names})


def _column(name: str, values: list[Any], start: int) -> pa.Array:
    try:
        return pa.array(values)
    except (pa.ArrowException, OverflowError) as error:
        message = first_line(error) if isinstance(error, pa.ArrowException) else "the number is too large"
        row = start + _first_misfit(values)
        raise DatasetError(f"column {name!r}: {message}", row=row) from error


def _first_misfit(values: list[Any]) -> int:
    """The shortest prefix that does not convert ends at the value at fault."""
    low, high = 1, len(values)
    while low < high:
        middle = (low + high) // 2
        try:
            pa.array(values[:middle])
            low = middle + 1
        except (pa.ArrowException, OverflowError):
            high = middle
    return low - 1
