"""What the owner of a data set should know before using it."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from models.core.dataset import Dataset
from models.core.inputs import Int64

TINY_CLASS = 10


def find_warnings(dataset: Dataset) -> list[str]:
    """Duplicates, conflicting labels of equal samples, missing labels, lone or tiny classes, mixed picture sizes."""
    return [*_shapes(dataset), *_classes(dataset), *_duplicates(dataset)]


def _shapes(dataset: Dataset) -> list[str]:
    if dataset.kind != "images" or isinstance(dataset.inputs, np.ndarray):
        return []
    shapes = {np.shape(picture) for picture in dataset.inputs}
    low = tuple(min(shape[axis] for shape in shapes) for axis in range(3))
    high = tuple(max(shape[axis] for shape in shapes) for axis in range(3))
    return [
        f"pictures have {len(shapes)} different shapes, from {low[1]} x {low[0]} to {high[1]} x {high[0]} pixels "
        f"and {low[2]} to {high[2]} channels: models resize them"
    ]


def _classes(dataset: Dataset) -> list[str]:
    if dataset.labels is None:
        return ["there are no labels: jobs that need them will refuse this data set"]
    counts = np.bincount(dataset.labels, minlength=len(dataset.class_names))
    warnings = []
    if np.count_nonzero(counts) == 1:
        warnings.append(f"all samples have one label: {dataset.class_names[int(dataset.labels[0])]!r}")
    tiny = np.flatnonzero(counts < TINY_CLASS)
    if len(tiny):
        shown = ", ".join(f"{dataset.class_names[i]!r} ({counts[i]})" for i in tiny[:5])
        more = f" and {len(tiny) - 5} more" if len(tiny) > 5 else ""
        warnings.append(f"{len(tiny)} classes have fewer than {TINY_CLASS} samples: {shown}{more}")
    return warnings


def duplicate_groups(dataset: Dataset) -> list[list[int]]:
    """Positions of samples with identical content, a list for each content that occurs more than once."""
    groups: dict[bytes, list[int]] = defaultdict(list)
    for index, digest in enumerate(_digests(dataset)):
        groups[digest].append(index)
    return [indices for indices in groups.values() if len(indices) > 1]


def conflicting_groups(groups: Sequence[list[int]], labels: Int64) -> list[list[int]]:
    """Those of ``groups`` whose samples carry more than one label."""
    return [indices for indices in groups if len(set(labels[indices].tolist())) > 1]


def _duplicates(dataset: Dataset) -> list[str]:
    repeated = duplicate_groups(dataset)
    if not repeated:
        return []
    surplus = sum(len(indices) - 1 for indices in repeated)
    first = repeated[0]
    warnings = [f"{surplus} samples repeat an earlier one (the first: rows {first[0]} and {first[1]})"]
    labels = dataset.labels
    if labels is not None:
        conflicts = conflicting_groups(repeated, labels)
        if conflicts:
            a = conflicts[0][0]
            b = next(index for index in conflicts[0] if labels[index] != labels[a])
            warnings.append(
                f"{len(conflicts)} samples occur with different labels (the first: row {a} is "
                f"{dataset.class_names[labels[a]]!r}, row {b} is {dataset.class_names[labels[b]]!r})"
            )
    return warnings


def _digests(dataset: Dataset) -> Iterable[bytes]:
    for item in dataset.inputs:
        if isinstance(item, np.ndarray):
            raw = str(item.shape).encode() + np.ascontiguousarray(item).tobytes()
        else:
            raw = repr(item).encode()
        yield hashlib.blake2b(raw, digest_size=12).digest()
