"""Gzipped tar archives of class folders, read as a stream and never written to their members' paths."""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

from models.core.datasets.errors import DatasetError
from models.core.datasets.folders import Members, folders_to_dataset, is_picture
from models.core.datasets.options import DatasetOptions, Limits, Parsed
from models.core.datasets.pictures import PictureDecoder

_RATIO_FREE = 32 << 20


def parse(path: Path, options: DatasetOptions, limits: Limits) -> Parsed:
    """Read a tar.gz of class folders.

    Raises:
        DatasetError: a refused or damaged member (names it), or as ``folders_to_dataset``.
    """
    with open_tar(path, limits) as reader:
        members = ((info.name, reader.read(info) if is_picture(info.name) else None) for info in reader.members())
        return folders_to_dataset(members, options, limits, PictureDecoder(limits))


class _Bounded:
    """Counts what comes out of the decompressor, so that also headers and skipped members are paid for."""

    def __init__(self, stream: IO[bytes], limits: Limits, compressed: int) -> None:
        self._stream = stream
        self._limits = limits
        self._most_by_ratio = max(_RATIO_FREE, limits.ratio * compressed)
        self._read = 0
        self.member: str | None = None

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        self._read += len(data)
        if self._read > self._limits.decompressed_bytes:
            raise DatasetError(f"more than {self._limits.decompressed_bytes} bytes decompressed", member=self.member)
        if self._read > self._most_by_ratio:
            raise DatasetError(f"decompresses to more than {self._limits.ratio} times its size", member=self.member)
        return data


class TarReader:
    """One pass over an archive."""

    def __init__(self, archive: tarfile.TarFile, bounded: _Bounded, limits: Limits) -> None:
        self._archive = archive
        self._bounded = bounded
        self._limits = limits

    def members(self) -> Iterator[tarfile.TarInfo]:
        """The regular files, in order.

        Raises:
            DatasetError: a link, device, FIFO or sparse file, or a refused name; names the member.
        """
        members = Members(self._limits)
        for info in self._archive:
            self._bounded.member = info.name
            members.admit(info.name)
            if info.isdir():
                continue
            if not info.isreg() or info.issparse():
                raise DatasetError("links, devices and sparse files are refused", member=info.name)
            if info.size > self._limits.decompressed_bytes:
                raise DatasetError(f"more than {self._limits.decompressed_bytes} bytes decompressed", member=info.name)
            yield info

    def read(self, info: tarfile.TarInfo) -> bytes:
        """The content of the member that :meth:`members` gave last.

        Raises:
            DatasetError: the archive ends within it.
        """
        stream = self._archive.extractfile(info)
        data = b"" if stream is None else stream.read()
        if len(data) < info.size:
            raise DatasetError("the archive ends within the member", member=info.name)
        return data


@contextmanager
def open_tar(path: Path, limits: Limits) -> Iterator[TarReader]:
    """Open for one pass from the beginning to the end.

    Raises:
        DatasetError: not a tar.gz, damaged, or too large once decompressed.
    """
    with gzip.open(path) as stream:
        bounded = _Bounded(cast("IO[bytes]", stream), limits, path.stat().st_size)
        try:
            with tarfile.open(fileobj=cast("Any", bounded), mode="r|", encoding="utf-8") as archive:
                yield TarReader(archive, bounded, limits)
        except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
            where = "" if bounded.member is None else f" after the member {bounded.member!r}"
            raise DatasetError(f"this is not a tar.gz file, or it is damaged{where}") from error
