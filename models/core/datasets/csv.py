"""Comma-separated values: UTF-8, a header row, comma, semicolon or tab."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv

from models.core.datasets.columns import (
    ID_NAMES,
    IMAGE_NAMES,
    LABEL_NAMES,
    PAIR_NAMES,
    Columns,
    choose_columns,
    is_text,
)
from models.core.datasets.errors import DatasetError
from models.core.datasets.options import DatasetOptions, Limits, Parsed
from models.core.datasets.parquet import first_line
from models.core.datasets.table import first_non_number, mostly_numbers, table_to_dataset

# Never guessed to be numbers: labels and ids stay as written, and a text may consist of digits.
_TEXT = {*LABEL_NAMES, *ID_NAMES, *IMAGE_NAMES, "text", "texts", "sentence", *(n for pair in PAIR_NAMES for n in pair)}
_MAX_HEADER = 1 << 20
_ROW = re.compile(r"Row #(\d+): (.*)")


def parse(path: Path, options: DatasetOptions, limits: Limits) -> Parsed:
    """Read a CSV file; labels and ids are kept as they are written (``007`` stays ``007``).

    Raises:
        DatasetError: a row has too many or too few values or is not UTF-8, or as ``table_to_dataset``.
    """
    table = _read(path, options)
    if table.nbytes > limits.decompressed_bytes:
        raise DatasetError(f"the values take more than {limits.decompressed_bytes} bytes in memory")
    if table.num_rows == 0:
        raise DatasetError("the file has no rows")
    columns = choose_columns(table.schema, options)
    if columns.kind == "vectors" and options.features is None:
        _refuse_typos(table, columns)
    return table_to_dataset(table, columns, options, limits)


def _read(path: Path, options: DatasetOptions) -> pa.Table:
    delimiter, names = read_header(path)
    chosen = {name for name in (options.label, options.id, options.text, options.text_pair, options.image) if name}
    lower = [name.lower() for name in names]
    label = options.label or next((name for name in LABEL_NAMES if name in lower), None)
    # Beside the column that is the label, the other usual names, `y` among them, are features.
    guessed = _TEXT - {name for name in LABEL_NAMES if name != label}
    as_text = [name for name in names if name in chosen or name.lower() in guessed]
    try:
        table = pa_csv.read_csv(
            path,
            # One thread: only then do messages name the row.
            read_options=pa_csv.ReadOptions(use_threads=False),
            parse_options=pa_csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            convert_options=pa_csv.ConvertOptions(column_types={name: pa.string() for name in as_text}),
        )
    except pa.ArrowException as error:
        raise _explain(error) from error
    for column in table.schema:
        if pa.types.is_binary(column.type):
            raise DatasetError(f"column {column.name!r} is not UTF-8")
    return table


def read_header(path: Path) -> tuple[str, list[str]]:
    """The delimiter and the column names of the first line.

    Raises:
        DatasetError: no header, or not UTF-8.
    """
    with path.open("rb") as file:
        line = file.readline(_MAX_HEADER)
    try:
        header = line.decode("utf-8-sig").rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise DatasetError("the header is not UTF-8") from error
    if not header.strip() or "\0" in header:
        raise DatasetError("the first line is not a header of column names")
    delimiter = max(",;\t", key=header.count)
    return delimiter, [name.strip().strip('"') for name in header.split(delimiter)]


def _refuse_typos(table: pa.Table, columns: Columns) -> None:
    for name in columns.ignored:
        column = table.column(name)
        if is_text(column.type) and mostly_numbers(column):
            row = first_non_number(column)
            value = "" if row is None else str(column[row].as_py())[:40]
            raise DatasetError(f"column {name!r}: {value!r} is not a number", row=row)


def _explain(error: Exception) -> DatasetError:
    message = first_line(error)
    found = _ROW.search(message)
    if found is None:
        return DatasetError(f"the CSV file cannot be read: {message}")
    detail = "not UTF-8" if "UTF8" in found[2] else found[2]
    # Arrow counts from 1 and counts the header.
    return DatasetError(detail, row=max(0, int(found[1]) - 2))
