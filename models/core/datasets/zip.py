"""Zip archives of class folders. Members are read in memory and never written to their own paths."""

from __future__ import annotations

import stat
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from models.core.datasets.errors import DatasetError
from models.core.datasets.folders import Members, folders_to_dataset, is_picture
from models.core.datasets.options import DatasetOptions, Limits, Parsed
from models.core.datasets.pictures import PictureDecoder

_RATIO_FREE = 1 << 20


def parse(path: Path, options: DatasetOptions, limits: Limits) -> Parsed:
    """Read a zip of class folders.

    Raises:
        DatasetError: a refused or damaged member (names it), or as ``folders_to_dataset``.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return folders_to_dataset(_members(archive, limits), options, limits, PictureDecoder(limits))
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        if isinstance(error, DatasetError):
            raise
        raise DatasetError("this is not a zip file, or it is damaged") from error


def _members(archive: zipfile.ZipFile, limits: Limits) -> Iterator[tuple[str, bytes | None]]:
    infos = archive.infolist()
    check_infos(infos, limits)
    for info in infos:
        if info.is_dir():
            continue
        yield info.filename, read_member(archive, info) if is_picture(info.filename) else None


def read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """The content of a member whose declared size was checked; asking for that size bounds the memory taken.

    Raises:
        DatasetError: damaged, or of a compression that is not known.
    """
    try:
        with archive.open(info) as member:
            data = member.read(info.file_size)
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError) as error:
        raise DatasetError("the member is damaged", member=info.filename) from error
    if len(data) < info.file_size:
        raise DatasetError("the member is shorter than the archive says", member=info.filename)
    return data


def check_infos(infos: list[zipfile.ZipInfo], limits: Limits) -> None:
    """Judge the directory of the archive before anything is decompressed.

    Raises:
        DatasetError: links, devices, encryption, refused names, or sizes over the limits; names the member.
    """
    members, total = Members(limits), 0
    for info in infos:
        members.admit(info.filename)
        mode = info.external_attr >> 16
        if info.create_system == 3 and stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise DatasetError("links and devices are refused", member=info.filename)
        if info.flag_bits & 0x1:
            raise DatasetError("encrypted members are refused", member=info.filename)
        total += info.file_size
        if total > limits.decompressed_bytes:
            raise DatasetError(f"more than {limits.decompressed_bytes} bytes decompressed", member=info.filename)
        if info.file_size > _RATIO_FREE and info.file_size > limits.ratio * max(1, info.compress_size):
            raise DatasetError(f"decompresses to more than {limits.ratio} times its size", member=info.filename)
