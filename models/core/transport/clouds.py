"""A data set as a cloud of points."""

from __future__ import annotations

import numpy as np

from models.core.dataset import Dataset
from models.core.inputs import Float64, ImageSpec, InputError, Int64
from models.core.outputs import Side


def draw(size: int, count: int, seed: int) -> Int64:
    """``count`` of ``size`` positions without repetition, in order; all of them where there are no more."""
    if size <= count:
        return np.arange(size)
    return np.sort(np.random.default_rng(seed).choice(size, count, replace=False))


def picture_spec(*datasets: Dataset) -> ImageSpec:
    """The smallest common form of the pictures of ``datasets``: their least height and width, grey if any is grey.

    Raises:
        InputError: a data set holds no pictures.
    """
    shapes = []
    for dataset in datasets:
        dataset.require_kind("images")
        inputs = dataset.inputs
        shapes += [inputs.shape[1:]] if isinstance(inputs, np.ndarray) else [np.shape(picture) for picture in inputs]
    channels = [shape[2] if len(shape) == 3 else 1 for shape in shapes]
    return ImageSpec(
        height=min(shape[0] for shape in shapes),
        width=min(shape[1] for shape in shapes),
        channels=1 if min(channels) == 1 else 3,
    )


def points(dataset: Dataset, spec: ImageSpec | None = None) -> Float64:
    """Pictures fitted to ``spec`` and flattened to [0, 1], or vectors as they are: float64 ``(N, d)``.

    Raises:
        InputError: the data set holds text, or pictures that do not fit.
    """
    if dataset.kind == "images":
        pictures = dataset.images(spec or picture_spec(dataset))
        return pictures.reshape(len(pictures), -1).astype(np.float64) / 255.0
    if dataset.kind != "vectors":
        raise InputError(f"the data set holds {dataset.kind}; a distance needs images or vectors")
    return dataset.vectors().astype(np.float64)


def side(dataset: Dataset, spec: ImageSpec | None = None) -> Side:
    """The data set as one side of a distance, uniformly weighted, with its labels."""
    return Side(points(dataset, spec), labels=dataset.labels, class_names=dataset.class_names)
