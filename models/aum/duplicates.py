"""Identical samples, and those whose labels contradict each other."""

from __future__ import annotations

from typing import Any

from models.core.dataset import Dataset
from models.core.datasets.checks import conflicting_groups, duplicate_groups
from models.core.inputs import Int64


def find_duplicates(dataset: Dataset, labels: Int64, limit: int = 20) -> dict[str, Any]:
    """Groups of samples with identical content.

    Returns:
        ``groups`` and ``samples`` of all duplicates, ``conflicting_groups`` and ``conflicting_samples`` of those
        with more than one label, and up to ``limit`` conflicting ``examples`` (``indices``, ``ids``, ``labels``).
    """
    groups = duplicate_groups(dataset)
    conflicting = conflicting_groups(groups, labels)
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
