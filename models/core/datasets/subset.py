"""Chosen samples of a file, written in the format that came in with everything else of it kept."""

from __future__ import annotations

import csv
import gzip
import io
import tarfile
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from models.core.datasets import jsonl
from models.core.datasets.csv import read_header
from models.core.datasets.folders import is_picture
from models.core.datasets.npz import CLASS_NAMES, Names, NpzFile
from models.core.datasets.options import DatasetOptions, Format, Limits
from models.core.datasets.parquet import batch_size
from models.core.datasets.tar import open_tar
from models.core.datasets.zip import read_member
from models.core.inputs import Int64

Keep = npt.NDArray[np.bool_]
_MAX_FIELD = (1 << 31) - 1


def write_dataset(
    dataset_path: Path,
    format_: Format,
    keep_indices: Sequence[int] | Int64,
    out_path: Path,
    *,
    options: DatasetOptions | None = None,
    limits: Limits | None = None,
) -> None:
    """Write the samples at ``keep_indices``, in the file's own order, to ``out_path``.

    Rows keep all their columns, members their names and dates; what is no sample (other members, arrays of other
    lengths, metadata) is kept too.

    Args:
        options: those the data set was read with; they say which array of an npz file counts the samples.

    Raises:
        ValueError: no index, one twice, or one that the file does not have.
        DatasetError: the file cannot be read.
    """
    wanted = np.asarray(keep_indices, dtype=np.int64)
    if wanted.ndim != 1 or len(wanted) == 0 or wanted.min() < 0:
        raise ValueError("keep_indices names at least one sample, from 0")
    keep = np.zeros(int(wanted.max()) + 1, dtype=bool)
    keep[wanted] = True
    if np.count_nonzero(keep) < len(wanted):
        raise ValueError("keep_indices names a sample twice")
    writers: dict[Format, Callable[[], int]] = {
        "npz": lambda: _npz(dataset_path, keep, out_path, options or DatasetOptions(), limits or Limits()),
        "parquet": lambda: _parquet(dataset_path, keep, out_path, limits or Limits()),
        "csv": lambda: _lines(_csv_records(dataset_path), keep, out_path, header=True),
        "jsonl": lambda: _lines(jsonl.records(dataset_path), keep, out_path),
        "zip": lambda: _zip(dataset_path, keep, out_path),
        "tar.gz": lambda: _tar(dataset_path, keep, out_path, limits or Limits()),
    }
    samples = writers[format_]()
    if samples < len(keep):
        out_path.unlink(missing_ok=True)
        raise ValueError(f"keep_indices names sample {len(keep) - 1}; the file has {samples}")


def _kept(keep: Keep, index: int) -> bool:
    return index < len(keep) and bool(keep[index])


def _npz(path: Path, keep: Keep, out: Path, options: DatasetOptions, limits: Limits) -> int:
    archive = NpzFile(path, limits)
    samples = len(archive.read(Names.choose(archive.names, options).inputs))
    chosen = np.flatnonzero(keep)
    if len(keep) > samples:
        return samples
    with zipfile.ZipFile(out, "w", allowZip64=True) as target:
        for name, info in archive.infos.items():
            array = archive.read(name)
            if array.ndim and len(array) == samples and name != CLASS_NAMES:
                array = array[chosen]
            copy = zipfile.ZipInfo(info.filename, info.date_time)
            copy.compress_type = info.compress_type
            with target.open(copy, "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)
    return samples


def _parquet(path: Path, keep: Keep, out: Path, limits: Limits) -> int:
    with pq.ParquetFile(path) as file:
        samples = int(file.metadata.num_rows)
        groups = file.metadata.num_row_groups
        codec = file.metadata.row_group(0).column(0).compression if groups else "SNAPPY"
        mask = np.zeros(samples, dtype=bool)
        mask[: len(keep)] = keep[:samples]
        start = 0
        with pq.ParquetWriter(out, file.schema_arrow, compression="NONE" if codec == "UNCOMPRESSED" else codec) as sink:
            for batch in file.iter_batches(batch_size(file, limits)):
                part = batch.filter(pa.array(mask[start : start + batch.num_rows]))
                start += batch.num_rows
                if part.num_rows:
                    sink.write_batch(part)
    return samples


def _lines(records: Iterable[bytes], keep: Keep, out: Path, *, header: bool = False) -> int:
    rows = iter(records)
    samples = 0
    ended = True
    with out.open("wb") as target:
        if header:
            target.write(next(rows))
        for samples, record in enumerate(rows, start=1):
            if _kept(keep, samples - 1):
                if not ended:
                    target.write(b"\n")
                target.write(record)
                ended = record.endswith((b"\n", b"\r"))
    return samples


def _csv_records(path: Path) -> Iterator[bytes]:
    """The raw text of each record, header first; a quoted line break is part of its record.

    Latin-1 maps every byte to one character and back, so that the text is copied as it is.
    """
    delimiter, _ = read_header(path)
    consumed: list[str] = []

    def lines(file: io.TextIOWrapper) -> Iterator[str]:
        for line in file:
            consumed.append(line)
            yield line

    csv.field_size_limit(_MAX_FIELD)
    with path.open(encoding="latin-1", newline="") as file:
        for row in csv.reader(lines(file), delimiter=delimiter):
            raw = "".join(consumed).encode("latin-1")
            consumed.clear()
            if row:  # an empty line is no row
                yield raw


def _zip(path: Path, keep: Keep, out: Path) -> int:
    samples = 0
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(out, "w", allowZip64=True) as target:
        for info in archive.infolist():
            if not info.is_dir() and is_picture(info.filename):
                samples += 1
                if not _kept(keep, samples - 1):
                    continue
            target.writestr(info, read_member(archive, info) if not info.is_dir() else b"")
    return samples


def _tar(path: Path, keep: Keep, out: Path, limits: Limits) -> int:
    samples = 0
    with (
        open_tar(path, limits) as reader,
        out.open("wb") as file,
        # Neither the time nor the name of the file: the same samples are the same data set.
        gzip.GzipFile("", "wb", fileobj=file, mtime=0) as stream,
        tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as target,
    ):
        for info in reader.members():
            if is_picture(info.name):
                samples += 1
                if not _kept(keep, samples - 1):
                    continue
            target.addfile(info, io.BytesIO(reader.read(info)))
    return samples
