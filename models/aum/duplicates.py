"""Identical samples, and those whose labels contradict each other."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from typing import Any

import numpy as np

from models.core.dataset import Dataset
from models.core.inputs import Int64


def find_duplicates(dataset: Dataset, labels: Int64, limit: int = 20) -> dict[str, Any]:
    """Groups of samples with identical content.

    Returns:
        ``groups`` and ``samples`` of all duplicates, ``conflicting_groups`` and ``conflicting_samples`` of those
        with more than one label, and up to ``limit`` conflicting ``examples`` (``indices``, ``ids``, ``labels``).
    """
    members: defaultdict[bytes, list[int]] = defaultdict(list)
    for index, item in enumerate(dataset.inputs):
        members[_digest(item)].append(index)
    groups = [group for group in members.values() if len(group) > 1]
    conflicting = [group for group in groups if len(np.unique(labels[group])) > 1]
    return {
        "groups": len(groups),
        "samples": sum(map(len, groups)),
        "conflicting_groups": len(conflicting),
        "conflicting_samples": sum(map(len, conflicting)),
        "examples": [
            {
                "indices": group,
                "ids": [sample_id(dataset, index) for index in group],
                "labels": [dataset.class_names[labels[index]] for index in group],
            }
            for group in conflicting[:limit]
        ],
    }


def sample_id(dataset: Dataset, index: int) -> str:
    """The user's identifier of a sample, or its position."""
    return str(index) if dataset.sample_ids is None else dataset.sample_ids[index]


def _digest(item: Any) -> bytes:
    if isinstance(item, np.ndarray):
        digest = hashlib.blake2b(str((item.dtype, item.shape)).encode(), digest_size=16)
        digest.update(np.ascontiguousarray(item).data)
        return digest.digest()
    return hashlib.blake2b(str(item).encode(), digest_size=16).digest()
