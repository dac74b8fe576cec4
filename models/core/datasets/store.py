"""Data sets of users in the blob store.

``datasets/{owner}/{id}/`` holds the file as it was uploaded and ``record.json``, written last: a data set is there
when its record is. The id is a hash of owner, content and options, so that the same upload finds the same data set.
"""

from __future__ import annotations

import builtins
import hashlib
import re
import time
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel

from models.core.dataset import Dataset, Kind
from models.core.datasets.cache import ParsedCache
from models.core.datasets.errors import UnknownDatasetError
from models.core.datasets.options import DatasetOptions, Format, Limits
from models.core.datasets.reading import format_of, read_dataset
from models.core.store import BlobStore, StoreUnavailableError

_ID = re.compile(r"ds_[0-9a-f]{32}")


class DatasetRecord(BaseModel):
    """What ``record.json`` holds.

    Attributes:
        shape: of one sample: ``[height, width, channels]`` or ``[size]``; None where samples differ or are text.
        bytes: size of the uploaded file.
        sha256: hash of the uploaded file.
    """

    id: str
    owner: str
    name: str
    kind: Kind
    samples: int
    shape: list[int] | None
    classes: int
    class_names: list[str]
    bytes: int
    sha256: str
    created_at: float
    warnings: list[str]
    format: Format
    options: DatasetOptions


class DatasetStore:
    """Data sets of all owners; safe to use from several processes at once.

    Args:
        cache: folder of this machine for parsed data sets and files of a store that is not local.
        limits: what a file may cost before it is refused.
    """

    def __init__(self, store: BlobStore, cache: Path, limits: Limits | None = None) -> None:
        self.cache = cache
        self._store = store
        self._files = cache / "files"
        self._parsed = ParsedCache(cache / "parsed")
        self._limits = limits or Limits()

    def add(
        self,
        owner: str,
        path: Path,
        *,
        filename: str,
        name: str | None = None,
        options: DatasetOptions | None = None,
        sha256: str | None = None,
    ) -> tuple[DatasetRecord, bool]:
        """Parse the file ``path`` and store a copy of it; whether it is new is the second of the answer.

        Args:
            filename: the user's name of the file; its ending says the format.
            sha256: the file's hash where the caller has it already.

        Raises:
            DatasetError: the file cannot be used; names the row, the member or the option.
            StoreFullError: no space is left; nothing is kept.
        """
        options = options or DatasetOptions()
        format_ = format_of(filename)
        sha256 = sha256 or hash_file(path)
        found = self.find(owner, sha256, format_, options)
        if found is not None:
            return found, False
        name = name or filename
        parsed = read_dataset(path, format_, options, self._limits, name=name)
        dataset = parsed.dataset
        record = DatasetRecord(
            id=_dataset_id(owner, sha256, format_, options),
            owner=owner,
            name=name,
            kind=dataset.kind,
            samples=len(dataset),
            shape=_sample_shape(dataset),
            classes=len(dataset.class_names),
            class_names=dataset.class_names,
            bytes=path.stat().st_size,
            sha256=sha256,
            created_at=time.time(),
            warnings=parsed.warnings,
            format=format_,
            options=options,
        )
        self._keep(record, path, dataset)
        return record, True

    def find(self, owner: str, sha256: str, format_: Format, options: DatasetOptions) -> DatasetRecord | None:
        """The data set that the same upload made before, or None."""
        try:
            return self.get(owner, _dataset_id(owner, sha256, format_, options))
        except UnknownDatasetError:
            return None

    def get(self, owner: str | None, dataset_id: str) -> DatasetRecord:
        """The record of a data set of ``owner`` (of any owner when None).

        Raises:
            UnknownDatasetError: there is none.
        """
        for folder in self._owners(owner) if is_dataset_id(dataset_id) else []:
            key = f"datasets/{folder}/{dataset_id}/record.json"
            try:
                return DatasetRecord.model_validate_json(self._store.get(key))
            except FileNotFoundError:
                continue
        raise UnknownDatasetError(dataset_id)

    def list(self, owner: str | None) -> builtins.list[DatasetRecord]:
        """All data sets of ``owner`` (of everybody when None), the newest first."""
        found = []
        for folder in self._owners(owner):
            for dataset_id in self._store.folders(f"datasets/{folder}"):
                try:
                    raw = self._store.get(f"datasets/{folder}/{dataset_id}/record.json")
                except FileNotFoundError:
                    continue
                found.append(DatasetRecord.model_validate_json(raw))
        return sorted(found, key=lambda record: (-record.created_at, record.id))

    def load(self, owner: str | None, dataset_id: str, *, mapped: bool = False) -> Dataset:
        """The data set in memory; ``mapped`` leaves arrays on disk, for reading a few rows.

        Raises:
            UnknownDatasetError: there is none.
        """
        record = self.get(owner, dataset_id)
        cached = self._parsed.get(record.id, mapped=mapped)
        if cached is not None:
            return cached
        path, format_ = self.file(owner, dataset_id)
        dataset = read_dataset(path, format_, record.options, self._limits, name=record.name).dataset
        self._parsed.put(record.id, dataset)
        return dataset

    def cached(self, record: DatasetRecord) -> Dataset | None:
        """The parsed data set with its arrays left on disk where this machine has it, else None."""
        return self._parsed.get(record.id, mapped=True)

    def file(self, owner: str | None, dataset_id: str) -> tuple[Path, Format]:
        """The file as it was uploaded, on this machine, and its format.

        Raises:
            UnknownDatasetError: there is none.
        """
        record = self.get(owner, dataset_id)
        key = _file_key(record)
        path = self._store.local_path(key)
        if path is None:
            path = self._files / f"{record.id}.{record.format}"
            if not path.exists():
                self._store.get_file(key, path)
        return path, record.format

    def delete(self, owner: str | None, dataset_id: str) -> None:
        """Remove a data set.

        Raises:
            UnknownDatasetError: there is none.
        """
        record = self.get(owner, dataset_id)
        prefix = f"datasets/{_folder(record.owner)}/{record.id}"
        self._store.delete(f"{prefix}/record.json")
        self._store.delete(prefix)
        self._parsed.delete(record.id)
        (self._files / f"{record.id}.{record.format}").unlink(missing_ok=True)

    def _keep(self, record: DatasetRecord, path: Path, dataset: Dataset) -> None:
        prefix = f"datasets/{_folder(record.owner)}/{record.id}"
        try:
            self._store.put_file(_file_key(record), path)
            self._store.put(f"{prefix}/record.json", record.model_dump_json().encode())
        except BaseException:
            with suppress(StoreUnavailableError):
                self._store.delete(prefix)
            raise
        self._parsed.put(record.id, dataset)

    def _owners(self, owner: str | None) -> builtins.list[str]:
        return self._store.folders("datasets") if owner is None else [_folder(owner)]


def is_dataset_id(text: str) -> bool:
    """Whether ``text`` has the form of an id of this store."""
    return _ID.fullmatch(text) is not None


def hash_file(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _dataset_id(owner: str, sha256: str, format_: Format, options: DatasetOptions) -> str:
    text = "\0".join((owner, sha256, format_, options.model_dump_json(exclude_defaults=True)))
    return f"ds_{hashlib.sha256(text.encode()).hexdigest()[:32]}"


def _folder(owner: str) -> str:
    return hashlib.sha256(owner.encode()).hexdigest()[:32]


def _file_key(record: DatasetRecord) -> str:
    return f"datasets/{_folder(record.owner)}/{record.id}/file.{record.format}"


def _sample_shape(dataset: Dataset) -> builtins.list[int] | None:
    shape = getattr(dataset.inputs, "shape", None)
    return None if shape is None else [int(size) for size in shape[1:]]
