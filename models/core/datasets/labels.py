"""Class labels as users write them, to indices and names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from models.core.datasets.errors import DatasetError
from models.core.inputs import Int64

_INTEGER = re.compile(r"-?\d{1,18}")


def encode_labels(column: pa.Array | pa.ChunkedArray, class_names: Sequence[str] | None) -> tuple[Int64, list[str]]:
    """Encode N labels as int64 ``(N,)`` indices and the class names that they point to.

    Names are sorted (numerically when all are integers) unless ``class_names`` fixes them: integers then are
    positions in it, strings members of it.

    Raises:
        DatasetError: a label is missing, not a class label, or not in ``class_names``; names the row.
    """
    column = _plain(column)
    if column.null_count:
        _refuse_missing(_mask(column.is_null()))
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return _encode_strings(column, class_names)
    if pa.types.is_boolean(column.type):
        return _encode_strings(column.cast(pa.string()), class_names)
    if pa.types.is_floating(column.type):
        column = _whole(column)
    if not pa.types.is_integer(column.type):
        raise DatasetError(f"labels are integers, strings or booleans, not {column.type}", field="/options/label")
    values = column.to_numpy()
    if class_names is not None:
        return _positions(values, class_names)
    unique, inverse = np.unique(values, return_inverse=True)
    return inverse.astype(np.int64), [str(value) for value in unique]


def _plain(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if isinstance(column, pa.ChunkedArray):  # more than 2 GiB of strings stay chunked
        column = pa.concat_arrays([chunk.cast(pa.large_string()) for chunk in column.chunks])
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def _mask(array: pa.Array) -> npt.NDArray[np.bool_]:
    return np.asarray(array.to_numpy(zero_copy_only=False), dtype=bool)


def _refuse_missing(missing: npt.NDArray[np.bool_]) -> None:
    rows = np.flatnonzero(missing)
    others = f" ({len(rows)} of {len(missing)} rows have none)" if len(rows) > 1 else ""
    raise DatasetError(f"the label is missing{others}; remove such rows", row=int(rows[0]))


def _encode_strings(column: pa.Array, class_names: Sequence[str] | None) -> tuple[Int64, list[str]]:
    encoded = column.dictionary_encode()
    found: list[str] = encoded.dictionary.to_pylist()
    indices = encoded.indices.to_numpy().astype(np.int64)
    if "" in found:
        _refuse_missing(indices == found.index(""))
    numeric = all(_INTEGER.fullmatch(name) for name in found)
    if class_names is None:
        names = sorted(found, key=lambda name: (int(name), name)) if numeric else sorted(found)
    elif numeric and not set(found) <= set(class_names):
        return _positions(np.array([int(name) for name in found], dtype=np.int64)[indices], class_names)
    else:
        names = list(class_names)
    position = {name: index for index, name in enumerate(names)}
    unknown = [index for index, name in enumerate(found) if name not in position]
    if unknown:
        row = int(np.flatnonzero(np.isin(indices, unknown))[0])
        raise DatasetError(f"the label {found[indices[row]]!r} is not in class_names", row=row)
    return np.array([position[name] for name in found], dtype=np.int64)[indices], names


def _positions(values: npt.NDArray[Any], class_names: Sequence[str]) -> tuple[Int64, list[str]]:
    outside = np.flatnonzero((values < 0) | (values >= len(class_names)))
    if len(outside):
        row = int(outside[0])
        raise DatasetError(f"the label {values[row]} is not in 0..{len(class_names) - 1} of class_names", row=row)
    return values.astype(np.int64), list(class_names)


def _whole(column: pa.Array) -> pa.Array:
    values = column.to_numpy()
    wrong = np.flatnonzero(~np.isfinite(values) | (values != np.floor(values)) | (np.abs(values) > 2**53))
    if len(wrong):
        row = int(wrong[0])
        raise DatasetError(f"the label {values[row]} is not a class: integers and strings are", row=row)
    return pc.cast(column, pa.int64())
