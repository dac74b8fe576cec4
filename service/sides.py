"""The two sides of a distance as a client writes them, turned into arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from models.core.dataset import Dataset
from models.core.outputs import Side, Sides
from service.problems import FieldError, Problem
from service.reading import Reader
from service.schemas.inference import DistanceRequest, SideInput

Float64 = npt.NDArray[np.float64]


def read_sides(body: DistanceRequest, reader: Reader) -> Sides:
    """Both sides, and the cost matrix where one is given.

    Raises:
        Problem: 422 naming the field that is wrong, 404 for an unknown data set.
    """
    a, b = _side(body.a, reader, "/a"), _side(body.b, reader, "/b")
    cost = None
    if body.cost_matrix is not None:
        cost = _matrix(body.cost_matrix, "/cost_matrix")
        if cost.shape != (len(a.points), len(b.points)):
            raise _invalid("/cost_matrix", f"expected {len(a.points)} x {len(b.points)} costs, got {cost.shape}")
    elif a.points.shape[1] != b.points.shape[1]:
        raise _invalid(
            "/b/points", f"points of {b.points.shape[1]} numbers cannot be compared with {a.points.shape[1]}"
        )
    return Sides(a, b, body.return_coupling, cost)


def count_pairs(body: DistanceRequest, reader: Reader) -> int:
    """How many pairs of points the request compares, without loading a data set.

    Raises:
        Problem: as :func:`read_sides`.
    """
    return _count(body.a, reader, "/a") * _count(body.b, reader, "/b")


def _count(side: SideInput, reader: Reader, where: str) -> int:
    _check(side, where)
    if side.dataset is not None:
        return reader.size(side.dataset, f"{where}/dataset")
    return len(_rows(side.points)) if isinstance(side.points, list | dict) else 0


def _side(side: SideInput, reader: Reader, where: str) -> Side:
    _check(side, where)
    if side.dataset is not None:
        return _stored(reader.dataset(side.dataset, f"{where}/dataset"), f"{where}/dataset")
    points = _matrix(_rows(side.points), f"{where}/points")
    weights = None if side.weights is None else _weights(side.weights, len(points), f"{where}/weights")
    if side.labels is None:
        return Side(points, weights)
    if len(side.labels) != len(points):
        raise _invalid(f"{where}/labels", f"expected {len(points)} labels, got {len(side.labels)}")
    names, labels = np.unique([str(label) for label in side.labels], return_inverse=True)
    return Side(points, weights, labels.astype(np.int64), [str(name) for name in names])


def _check(side: SideInput, where: str) -> None:
    if (side.points is None) == (side.dataset is None):
        raise _invalid(where, "give either `points` or `dataset`")
    if side.dataset is not None and (side.weights is not None or side.labels is not None):
        raise _invalid(where, "`weights` and `labels` go with `points`, not with `dataset`")


def _stored(dataset: Dataset, where: str) -> Side:
    if dataset.kind == "vectors":
        points = dataset.vectors().astype(np.float64)
    elif dataset.kind == "images" and isinstance(dataset.inputs, np.ndarray):
        points = dataset.inputs.reshape(len(dataset), -1).astype(np.float64) / 255.0
    else:
        raise _invalid(where, f"a distance needs vectors or pictures of one size; this data set holds {dataset.kind}")
    return Side(points, None, dataset.labels, dataset.class_names)


def _rows(points: Any) -> Any:
    if isinstance(points, dict) and points.get("type") == "points" and set(points) == {"type", "data"}:
        return points["data"]
    return points


def _matrix(rows: Any, where: str) -> Float64:
    values = _array(rows, where)
    if values.ndim != 2 or 0 in values.shape:
        raise _invalid(where, "expected at least one row, and rows of equal length")
    return values


def _weights(numbers: Any, count: int, where: str) -> Float64:
    values = _array(numbers, where)
    if values.shape != (count,):
        raise _invalid(where, f"expected {count} weights")
    if not (values > 0).all():
        raise _invalid(where, "weights must be positive")
    normalised: Float64 = values / values.sum()
    return normalised


def _array(data: Any, where: str) -> Float64:
    try:
        values = np.asarray(data, dtype=np.float64)
    except (ValueError, TypeError, OverflowError):
        raise _invalid(where, "expected numbers in rows of equal length") from None
    if not isinstance(data, list) or not np.isfinite(values).all():
        raise _invalid(where, "expected finite numbers")
    return values


def _invalid(where: str, detail: str) -> Problem:
    return Problem(422, detail, errors=[FieldError(where, detail)], code="invalid_input")
