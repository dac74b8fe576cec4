"""A table in memory (of a Parquet, CSV or JSON Lines file) to a data set."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from models.core.dataset import Dataset
from models.core.datasets.columns import Columns, is_list, is_number, is_number_list, is_text, shorten
from models.core.datasets.errors import DatasetError
from models.core.datasets.labels import encode_labels
from models.core.datasets.options import DatasetOptions, Limits, Parsed
from models.core.datasets.pictures import PictureDecoder, stack_pictures
from models.core.inputs import Float32, Int64, UInt8


def table_to_dataset(table: pa.Table, columns: Columns, options: DatasetOptions, limits: Limits) -> Parsed:
    """Convert the chosen columns; row i of the table is sample i.

    Raises:
        DatasetError: a value is missing, of a wrong type, NaN, infinite or too long; names row and column.
    """
    if table.num_rows == 0:
        raise DatasetError("the file has no rows")
    if table.num_rows > limits.samples:
        raise DatasetError(f"the file has {table.num_rows} rows, more than {limits.samples}")
    table = _expand(table.select(columns.used), limits)
    warnings = []
    if columns.ignored:
        warnings.append(f"columns not used: {shorten(columns.ignored)}")
    labels, class_names = _labels(table, columns, options)
    inputs: Any
    if columns.kind == "images":
        inputs = _pictures(table, columns.inputs[0], limits)
    elif columns.kind == "vectors":
        inputs = _vectors(table, columns.inputs)
    elif columns.kind == "text":
        inputs = _texts(table, columns.inputs[0], limits)
    else:
        inputs = list(zip(*(_texts(table, name, limits) for name in columns.inputs), strict=True))
    return Parsed(Dataset(columns.kind, inputs, labels, class_names, _ids(table, columns.id)), warnings)


def _labels(table: pa.Table, columns: Columns, options: DatasetOptions) -> tuple[Int64 | None, list[str]]:
    if columns.label is None or _is_empty(table.column(columns.label)):
        return None, []
    names = options.class_names or class_names_of(table.schema, columns.label)
    try:
        return encode_labels(table.column(columns.label), names)
    except DatasetError as error:
        raise _in_column(error, columns.label) from None


def _expand(table: pa.Table, limits: Limits) -> pa.Table:
    """Replace dictionary-encoded strings by strings, after a look at how much they become."""
    for position, column in enumerate(table.columns):
        if not (pa.types.is_dictionary(column.type) and is_text(column.type)):
            continue
        sizes = (pc.sum(pc.binary_length(c.dictionary).take(c.indices)).as_py() or 0 for c in column.chunks)
        if sum(sizes) > limits.decompressed_bytes:
            raise DatasetError(f"the texts take more than {limits.decompressed_bytes} bytes decompressed")
        expanded = pa.chunked_array([c.cast(pa.large_string()) for c in column.chunks], pa.large_string())
        table = table.set_column(position, table.schema.names[position], expanded)
    return table


def _is_empty(column: pa.ChunkedArray) -> bool:
    if column.null_count == len(column):
        return True
    return is_text(column.type) and not pc.any(pc.not_equal(column, "")).as_py()


def class_names_of(schema: pa.Schema, column: str) -> list[str] | None:
    """Names that Hugging Face's ``datasets`` writes for a ClassLabel column into the schema's metadata."""
    raw = (schema.metadata or {}).get(b"huggingface")
    if raw is None:
        return None
    try:
        names = json.loads(raw)["info"]["features"][column]["names"]
    except (ValueError, KeyError, TypeError):
        return None
    valid = isinstance(names, list) and names and all(isinstance(name, str) for name in names)
    return names if valid and len(set(names)) == len(names) else None


def _ids(table: pa.Table, name: str | None) -> list[str] | None:
    if name is None:
        return None
    column = table.column(name)
    if column.null_count:
        raise DatasetError(f"column {name!r}: the id is missing", row=_first(column.is_null()))
    return [str(value) for value in column.to_pylist()]


def _pictures(table: pa.Table, name: str, limits: Limits) -> UInt8 | list[UInt8]:
    decoder = PictureDecoder(limits)
    pictures = []
    row = 0
    for chunk in table.column(name).chunks:
        for value in chunk:
            try:
                pictures.append(decoder.decode_value(value.as_py()))
            except DatasetError as error:
                raise DatasetError(f"column {name!r}: {error.detail}", row=row) from error
            row += 1
    return stack_pictures(pictures)


def _texts(table: pa.Table, name: str, limits: Limits) -> list[str]:
    column = table.column(name)
    if not is_text(column.type):
        raise DatasetError(f"column {name!r} holds {column.type}, not text", field="/options/text")
    column = column.cast(pa.large_string())
    if column.null_count:
        raise DatasetError(f"column {name!r}: the text is missing", row=_first(column.is_null()))
    long = pc.greater(pc.utf8_length(column), limits.text_characters)
    if pc.any(long).as_py():
        raise DatasetError(f"column {name!r}: more than {limits.text_characters} characters", row=_first(long))
    texts: list[str] = column.to_pylist()
    return texts


def _vectors(table: pa.Table, names: list[str]) -> Float32:
    first = table.column(names[0])
    if len(names) == 1 and is_list(first.type):
        return _from_lists(first, names[0])
    vectors = np.empty((table.num_rows, len(names)), dtype=np.float32)
    for position, name in enumerate(names):
        vectors[:, position] = _numbers(table.column(name), name)
    return vectors


def _numbers(column: pa.ChunkedArray, name: str) -> npt.NDArray[np.float64]:
    if is_text(column.type):
        raise DatasetError(f"column {name!r}: {_not_a_number(column)}", row=first_non_number(column))
    if not is_number(column.type):
        raise DatasetError(f"column {name!r} holds {column.type}, not numbers", field="/options/features")
    if column.null_count:
        raise DatasetError(f"column {name!r}: the number is missing", row=_first(column.is_null()))
    values = np.asarray(column.cast(pa.float64(), safe=False).to_numpy(), dtype=np.float64)
    return check_finite(values, f"column {name!r}")


def check_finite(values: npt.NDArray[np.float64], what: str) -> npt.NDArray[np.float64]:
    """Return ``(N,)`` or ``(N, D)`` values that are finite as float32.

    Raises:
        DatasetError: NaN, infinite or too large for float32; names the row.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        wrong = ~np.isfinite(values.astype(np.float32))
    if wrong.any():
        row = int(np.flatnonzero(wrong.any(axis=tuple(range(1, wrong.ndim))))[0])
        raise DatasetError(f"{what}: NaN, infinite or too large for float32", row=row)
    return values


def first_non_number(column: pa.ChunkedArray) -> int | None:
    """The first row whose text is not a number, or None."""
    wrong = pc.invert(_numeric(column))
    return _first(wrong) if pc.any(wrong).as_py() else None


def mostly_numbers(column: pa.ChunkedArray) -> bool:
    """Whether most values of a text column read as numbers: then the others are mistakes, not text."""
    return bool(pc.mean(_numeric(column).cast(pa.float64())).as_py() > 0.5)


def _numeric(column: pa.ChunkedArray) -> pa.ChunkedArray:
    pattern = r"^\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*$"
    return pc.fill_null(pc.match_substring_regex(column.cast(pa.large_string()), pattern), False)


def _not_a_number(column: pa.ChunkedArray) -> str:
    row = first_non_number(column)
    return "text, not a number" if row is None else f"{str(column[row].as_py())[:40]!r} is not a number"


def _from_lists(column: pa.ChunkedArray, name: str) -> Float32:
    if not is_number_list(column.type):
        raise DatasetError(f"column {name!r} holds {column.type}, not lists of numbers", field="/options/features")
    if column.null_count:
        raise DatasetError(f"column {name!r}: the vector is missing", row=_first(column.is_null()))
    lengths = np.asarray(pc.list_value_length(column).to_numpy())
    wrong = np.flatnonzero((lengths != lengths[0]) | (lengths == 0))
    if len(wrong):
        row = int(wrong[0])
        raise DatasetError(f"column {name!r}: {lengths[row]} numbers, row 0 has {lengths[0]}", row=row)
    flat = pc.list_flatten(column).cast(pa.float64(), safe=False)
    if flat.null_count:
        raise DatasetError(f"column {name!r}: a number is missing", row=_first(flat.is_null()) // int(lengths[0]))
    values = np.asarray(flat.to_numpy(), dtype=np.float64).reshape(len(lengths), -1)
    return check_finite(values, f"column {name!r}").astype(np.float32)


def _first(mask: pa.ChunkedArray) -> int:
    return int(pc.index(mask, True).as_py())


def _in_column(error: DatasetError, name: str) -> DatasetError:
    return DatasetError(f"column {name!r}: {error.detail}", field=error.field, row=error.row)
