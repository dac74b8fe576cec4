"""NumPy archives. Nothing is unpickled, and an array's header is checked before memory is taken for it."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from models.core.dataset import Dataset, Kind
from models.core.datasets.columns import IMAGE_NAMES, LABEL_NAMES, shorten
from models.core.datasets.errors import DatasetError
from models.core.datasets.labels import encode_labels
from models.core.datasets.options import DatasetOptions, Limits, Parsed
from models.core.datasets.pictures import scale_pictures
from models.core.datasets.table import check_finite
from models.core.store import NO_SPACE, StoreFullError

CLASS_NAMES = "class_names"
MAPPED_BYTES = 64 << 20
_BLOCK = 1 << 20
_VECTOR_NAMES = ("x", "features", "vectors", "embeddings", "data")
_TEXT_NAMES = ("text", "texts")


def parse(path: Path, options: DatasetOptions, limits: Limits) -> Parsed:
    """Read ``images``/``x`` with ``labels``/``y``; 3 or 4 axes are pictures, 2 are vectors, 1 of strings are texts.

    An array ``class_names`` of strings names integer labels. Pictures with 1 or 3 channels on the second axis
    instead of the last are turned.

    Raises:
        DatasetError: pickled content, damaged, arrays of different lengths, a wrong shape, type or value.
    """
    archive = NpzFile(path, limits)
    names = Names.choose(archive.names, options)
    warnings = [f"arrays not used: {shorten(unused)}"] if (unused := names.unused(archive.names)) else []
    kind, inputs = _inputs(archive.read(names.inputs), names.inputs, limits, warnings)
    labels, class_names = None, list[str]()
    if names.label is not None:
        labels, class_names = _labels(archive, names.label, len(inputs), options)
    ids = None if names.id is None else [str(value) for value in _column(archive, names.id, len(inputs))]
    return Parsed(Dataset(kind, inputs, labels, class_names, ids), warnings)


class Names:
    """Which arrays hold what."""

    def __init__(self, inputs: str, label: str | None, id_: str | None) -> None:
        self.inputs, self.label, self.id = inputs, label, id_

    @classmethod
    def choose(cls, names: list[str], options: DatasetOptions) -> Names:
        """Choose by ``options`` first, then by the usual names.

        Raises:
            DatasetError: a named array is not there, or no array can be the input.
        """
        if options.text_pair is not None:
            raise DatasetError("an npz file holds no pairs", field="/options/text_pair")
        if options.features is not None and len(options.features) > 1:
            raise DatasetError("an npz file has one array of vectors", field="/options/features")
        wanted = {
            "image": options.image,
            "features": options.features[0] if options.features else None,
            "text": options.text,
            "label": options.label,
            "id": options.id,
        }
        for option, name in wanted.items():
            if name is not None and name not in names:
                raise DatasetError(
                    f"there is no array {name!r}; the arrays are {shorten(names)}", field=f"/options/{option}"
                )
        inputs = wanted["image"] or wanted["features"] or wanted["text"]
        inputs = inputs or _find(names, (*IMAGE_NAMES, *_VECTOR_NAMES, *_TEXT_NAMES))
        if inputs is None:
            raise DatasetError(f"no array 'images' or 'x' among {shorten(names)}; name one in options")
        return cls(inputs, wanted["label"] or _find(names, LABEL_NAMES), wanted["id"])

    def unused(self, names: list[str]) -> list[str]:
        """The arrays that are not read."""
        return [name for name in names if name not in (self.inputs, self.label, self.id, CLASS_NAMES)]


def _find(names: list[str], wanted: Iterable[str]) -> str | None:
    lowered = {name.lower(): name for name in reversed(names)}
    return next((lowered[name] for name in wanted if name in lowered), None)


class NpzFile:
    """The arrays of an npz file, each checked before it is read.

    Raises:
        DatasetError: not an npz file, or larger than the limits once decompressed.
    """

    def __init__(self, path: Path, limits: Limits) -> None:
        self._path = path
        try:
            with zipfile.ZipFile(path) as archive:
                self.infos = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        except (zipfile.BadZipFile, OSError, ValueError) as error:
            raise DatasetError("this is not an npz file") from error
        total = 0
        for info in self.infos.values():
            total += info.file_size
            if total > limits.decompressed_bytes:
                raise DatasetError(f"more than {limits.decompressed_bytes} bytes decompressed", member=info.filename)
            self._check(info)
        self.names = list(self.infos)

    def read(self, name: str) -> npt.NDArray[Any]:
        """Read one array; a large one lies in a file without a name beside the archive, and costs no memory.

        Raises:
            DatasetError: damaged content.
            StoreFullError: no space is left for a large one.
        """
        info = self.infos[name]
        with self._open(info) as member:
            if info.file_size > MAPPED_BYTES and os.access(self._path.parent, os.W_OK):
                return _mapped(member, self._path.parent)
            array: npt.NDArray[Any] = np.lib.format.read_array(member, allow_pickle=False)
            return array

    def _check(self, info: zipfile.ZipInfo) -> None:
        with self._open(info) as member:
            shape, _, dtype = _header(member)
            offset = member.tell()
        if dtype.hasobject:
            raise DatasetError("it holds pickled objects, which are never loaded", member=info.filename)
        if math.prod(shape) * dtype.itemsize + offset != info.file_size:
            raise DatasetError("its size is not the one that its header names", member=info.filename)

    @contextmanager
    def _open(self, info: zipfile.ZipInfo) -> Iterator[IO[bytes]]:
        try:
            with zipfile.ZipFile(self._path) as archive, archive.open(info) as member:
                yield member
        except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error, RuntimeError, SyntaxError) as error:
            if isinstance(error, OSError) and error.errno in NO_SPACE:
                raise StoreFullError(error.errno, "no space is left to read the file") from error
            raise DatasetError("the array cannot be read: it is damaged", member=info.filename) from error


def _header(member: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether Fortran's order, and type; leaves ``member`` at the first number."""
    version = np.lib.format.read_magic(member)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    header: tuple[tuple[int, ...], bool, np.dtype[Any]] = read(member)
    return header


def _mapped(member: IO[bytes], folder: Path) -> npt.NDArray[Any]:
    """The array in a file without a name; what is written to the array stays in memory."""
    with tempfile.TemporaryFile(dir=folder) as file:
        shutil.copyfileobj(member, file, _BLOCK)
        file.seek(0)
        shape, fortran, dtype = _header(file)
        return np.memmap(file, dtype, "c", file.tell(), shape, order="F" if fortran else "C")


def _inputs(array: npt.NDArray[Any], name: str, limits: Limits, warnings: list[str]) -> tuple[Kind, Any]:
    if array.ndim == 0 or len(array) == 0:
        raise DatasetError(f"the array {name!r} is empty")
    if len(array) > limits.samples:
        raise DatasetError(f"the array {name!r} has {len(array)} rows, more than {limits.samples}")
    if array.ndim >= 3:
        if array.ndim == 4 and array.shape[3] not in (1, 3, 4) and array.shape[1] in (1, 3):
            array = np.moveaxis(array, 1, 3)
            warnings.append("pictures came with channels first and were turned to channels last")
        return "images", scale_pictures(array, limits)
    if array.ndim == 2 and array.dtype.kind in "buif":
        if array.shape[1] == 0:
            raise DatasetError(f"the array {name!r} has vectors of no numbers")
        return "vectors", check_finite(array, f"array {name!r}").astype(np.float32)
    if array.ndim == 1 and array.dtype.kind in "US":
        texts = [str(text) for text in (array if array.dtype.kind == "U" else np.char.decode(array, "utf-8"))]
        long = next((row for row, text in enumerate(texts) if len(text) > limits.text_characters), None)
        if long is not None:
            raise DatasetError(f"more than {limits.text_characters} characters", row=long)
        return "text", texts
    raise DatasetError(
        f"the array {name!r} has shape {array.shape} and type {array.dtype}: neither pictures nor vectors"
    )


def _column(archive: NpzFile, name: str, rows: int) -> npt.NDArray[Any]:
    values = archive.read(name)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim != 1:
        raise DatasetError(f"the array {name!r} has shape {values.shape}; one value a row is expected")
    if len(values) != rows:
        raise DatasetError(f"the array {name!r} has {len(values)} rows, the inputs have {rows}")
    return np.char.decode(values, "utf-8") if values.dtype.kind == "S" else values


def _labels(archive: NpzFile, name: str, rows: int, options: DatasetOptions) -> tuple[Any, list[str]]:
    values = _column(archive, name, rows)
    if values.dtype.kind not in "biufU":
        raise DatasetError(f"the array {name!r} holds {values.dtype}, not labels", field="/options/label")
    class_names = options.class_names
    if class_names is None and CLASS_NAMES in archive.infos:
        stored = archive.read(CLASS_NAMES)
        if stored.ndim != 1 or stored.dtype.kind != "U" or len(set(stored.tolist())) < len(stored):
            raise DatasetError("class_names is an array of different strings", member="class_names.npy")
        class_names = stored.tolist()
    return encode_labels(pa.array(values), class_names)
