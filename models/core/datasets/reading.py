"""A file of any format to a data set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from models.core.datasets import csv, jsonl, npz, parquet, tar, zip  # noqa: A004
from models.core.datasets.checks import find_warnings
from models.core.datasets.errors import DatasetError
from models.core.datasets.options import SUFFIXES, DatasetOptions, Format, Limits, Parsed

_PARSERS: dict[Format, Callable[[Path, DatasetOptions, Limits], Parsed]] = {
    "npz": npz.parse,
    "parquet": parquet.parse,
    "csv": csv.parse,
    "jsonl": jsonl.parse,
    "zip": zip.parse,
    "tar.gz": tar.parse,
}


def format_of(filename: str) -> Format:
    """The format that a file's name says.

    Raises:
        DatasetError: none that is read.
    """
    lowered = filename.lower()
    for suffix, format_ in SUFFIXES.items():
        if lowered.endswith(suffix):
            return format_
    raise DatasetError(f"the file's name must end in {', '.join(SUFFIXES)}; it is {filename[-100:]!r}")


def read_dataset(path: Path, format_: Format, options: DatasetOptions, limits: Limits, *, name: str = "") -> Parsed:
    """Read a file; sample i is row i of it (for archives, the i-th picture).

    Raises:
        DatasetError: it cannot be used; names the row, the member or the option.
    """
    if path.stat().st_size == 0:
        raise DatasetError("the file is empty")
    parsed = _PARSERS[format_](path, options, limits)
    dataset = replace(parsed.dataset, name=name)
    return Parsed(dataset, [*parsed.warnings, *find_warnings(dataset)])
