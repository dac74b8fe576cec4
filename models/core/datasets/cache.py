"""Parsed data sets on this machine's disk, so that a file is decoded once and rows of it are read at once."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from models.core.dataset import Dataset, Kind
from models.core.inputs import Int64, UInt8

_FACTS = "facts.json"
_LAYOUT = 1


@dataclass(frozen=True)
class ParsedCache:
    """Folders of arrays below ``root``, the least recently used removed first.

    Args:
        most_bytes: what the folder may take in all; a larger data set is not kept.
    """

    root: Path
    most_bytes: int = 16 << 30

    def put(self, key: str, dataset: Dataset) -> None:
        """Keep a data set; concurrent writers of one key are fine. A full disk keeps nothing."""
        partial = self.root / f".{uuid.uuid4().hex}"
        try:
            partial.mkdir(parents=True)
            _write(partial, dataset)
            self._make_room(_size(partial))
            partial.rename(self._folder(key))
        except OSError:
            # There already, or no room: the cache is a convenience and the file itself is in the store.
            shutil.rmtree(partial, ignore_errors=True)

    def get(self, key: str, *, mapped: bool = False) -> Dataset | None:
        """The data set, or None. ``mapped`` leaves the inputs on disk, for reading a few rows."""
        folder = self._folder(key)
        try:
            dataset = _read(folder, mapped=mapped)
            os.utime(folder)
        except (OSError, ValueError):
            return None
        return dataset

    def delete(self, key: str) -> None:
        """Forget a data set."""
        shutil.rmtree(self._folder(key), ignore_errors=True)

    def _folder(self, key: str) -> Path:
        return self.root / f"{key}.v{_LAYOUT}"

    def _make_room(self, wanted: int) -> None:
        folders = [folder for folder in self.root.iterdir() if not folder.name.startswith(".")]
        by_age = sorted(((folder.stat().st_mtime, _size(folder), folder) for folder in folders), key=lambda f: f[0])
        total = wanted + sum(size for _, size, _ in by_age)
        for _, size, folder in by_age:
            if total <= self.most_bytes:
                return
            shutil.rmtree(folder, ignore_errors=True)
            total -= size
        if total > self.most_bytes:
            raise OSError("larger than the cache")


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())


def _write(folder: Path, dataset: Dataset) -> None:
    facts: dict[str, Any] = {"kind": dataset.kind, "class_names": dataset.class_names, "name": dataset.name}
    facts["sample_ids"] = dataset.sample_ids
    inputs = dataset.inputs
    if isinstance(inputs, np.ndarray):
        np.save(folder / "inputs.npy", inputs)
    elif dataset.kind == "images":
        pictures = [np.asarray(picture) for picture in inputs]
        np.save(folder / "shapes.npy", np.array([picture.shape for picture in pictures], dtype=np.int64))
        with (folder / "pixels.bin").open("wb") as file:
            for picture in pictures:
                file.write(np.ascontiguousarray(picture).data)
    else:
        facts["inputs"] = list(inputs)
    if dataset.labels is not None:
        np.save(folder / "labels.npy", dataset.labels)
    (folder / _FACTS).write_text(json.dumps(facts), encoding="utf-8")


def _read(folder: Path, *, mapped: bool) -> Dataset:
    facts = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
    kind: Kind = facts["kind"]
    inputs: Any
    if "inputs" in facts:
        inputs = [tuple(item) for item in facts["inputs"]] if kind == "pairs" else facts["inputs"]
    elif (folder / "shapes.npy").exists():
        pixels = np.memmap(folder / "pixels.bin", dtype=np.uint8, mode="r")
        inputs = _cut(pixels if mapped else np.array(pixels), np.load(folder / "shapes.npy"))
    else:
        inputs = np.load(folder / "inputs.npy", mmap_mode="r" if mapped else None, allow_pickle=False)
    labels = np.load(folder / "labels.npy", allow_pickle=False) if (folder / "labels.npy").exists() else None
    return Dataset(kind, inputs, labels, facts["class_names"], facts["sample_ids"], facts["name"])


def _cut(pixels: UInt8, shapes: Int64) -> Sequence[UInt8]:
    ends = np.cumsum(shapes.prod(axis=1))
    return [pixels[end - shape.prod() : end].reshape(shape) for end, shape in zip(ends, shapes, strict=True)]
