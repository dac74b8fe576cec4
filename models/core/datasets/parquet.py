"""Parquet files."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from models.core.datasets.columns import choose_columns
from models.core.datasets.errors import DatasetError
from models.core.datasets.options import DatasetOptions, Limits, Parsed
from models.core.datasets.table import table_to_dataset

_MAX_BATCH = 65_536


def parse(path: Path, options: DatasetOptions, limits: Limits) -> Parsed:
    """Read the columns that are used.

    Raises:
        DatasetError: not a Parquet file, too large once decompressed, or as ``table_to_dataset``.
    """
    try:
        with pq.ParquetFile(path) as file:
            columns = choose_columns(file.schema_arrow, options)
            if file.metadata.num_rows > limits.samples:
                raise DatasetError(f"the file has {file.metadata.num_rows} rows, more than {limits.samples}")
            table = _read(file, columns.used, limits)
    except (pa.ArrowException, OSError) as error:
        raise DatasetError(f"the Parquet file cannot be read: {first_line(error)}") from error
    return table_to_dataset(table, columns, options, limits)


def _read(file: pq.ParquetFile, columns: list[str], limits: Limits) -> pa.Table:
    batches, size = [], 0
    for batch in file.iter_batches(batch_size(file, limits), columns=columns):
        size += batch.nbytes
        if size > limits.decompressed_bytes:
            raise DatasetError(f"the columns take more than {limits.decompressed_bytes} bytes decompressed")
        batches.append(batch)
    schema = pa.schema([file.schema_arrow.field(name) for name in columns], metadata=file.schema_arrow.metadata)
    return pa.Table.from_batches(batches, schema) if batches else schema.empty_table()


def batch_size(file: pq.ParquetFile, limits: Limits) -> int:
    """Rows to decode at once: a dictionary repeats one value at no cost in the file, so that a chunk's size times the
    rows of a batch is what a batch can take at worst."""
    meta = file.metadata
    groups = [meta.row_group(index) for index in range(meta.num_row_groups)]
    largest = max(
        (g.column(c).total_uncompressed_size for g in groups for c in range(g.num_columns)),
        default=1,
    )
    return max(1, min(_MAX_BATCH, limits.decompressed_bytes // max(1, largest)))


def first_line(error: Exception) -> str:
    """The first line of a library's message, cut to a length fit for a person."""
    return str(error).partition("\n")[0][:300]
