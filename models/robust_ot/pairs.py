"""Two stored data sets as the sides of one problem: drawn for the solver, whole for the ranking."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from models.core.dataset import Dataset
from models.core.inputs import Float64, InputError, Int64
from models.core.jobs import JobContext
from models.core.method import MethodError
from models.core.outputs import Side
from models.core.transport.clouds import draw, picture_spec, side
from models.core.transport.costs import GroundCost, LabelCost
from models.robust_ot.ground import class_costs
from models.robust_ot.schema import Ground

_BLOCK_ROWS = 4096


@dataclass(frozen=True, eq=False)
class Pair:
    """The job's data set and the one that it is compared with.

    Attributes:
        first: the job's data set.
        second: the other one.
        a: the whole first data set as points.
        b: the whole second one, in the same space.
        rows: positions drawn from ``a``.
        columns: positions drawn from ``b``.
        ground: the ground cost.
        classes: labels of both sides and the table of class distances, where the cost is labelled.
    """

    first: Dataset
    second: Dataset
    a: Side
    b: Side
    rows: Int64
    columns: Int64
    ground: Ground
    classes: tuple[Int64, Int64, Float64] | None

    @property
    def drawn(self) -> Side:
        """What was drawn from ``a``."""
        labels = None if self.a.labels is None else self.a.labels[self.rows]
        return replace(self.a, points=self.a.points[self.rows], labels=labels)

    def drawn_cost(self) -> Float64:
        """The cost between what was drawn: float64 ``(len(rows), len(columns))``."""
        return self._cost(self.rows).numpy()

    def blocks(self) -> Iterator[Float64]:
        """The cost from all samples of ``a`` to what was drawn from ``b``, in blocks of rows."""
        for start in range(0, len(self.a.points), _BLOCK_ROWS):
            yield self._cost(np.arange(start, min(start + _BLOCK_ROWS, len(self.a.points)))).numpy()

    def _cost(self, rows: Int64) -> GroundCost:
        labels = None
        if self.classes is not None:
            of_a, of_b, table = self.classes
            labels = LabelCost(*(torch.from_numpy(x) for x in (of_a[rows], of_b[self.columns], table)))
        x, y = torch.from_numpy(self.a.points[rows]), torch.from_numpy(self.b.points[self.columns])
        return GroundCost(x, y, self.ground.p, self.ground.metric, labels=labels)


def load_pair(job: JobContext, other: str, field: str, ground: Ground, max_samples: int) -> Pair:
    """The job's data set and ``other``; pictures are brought to a common size.

    Args:
        field: the parameter that named ``other``, for messages.
        max_samples: samples drawn from each side.

    Raises:
        MethodError: a data set that is missing, or two that cannot be compared.
    """
    first, second = load_both(job, other, field)
    try:
        spec = picture_spec(first, second) if first.kind == "images" else None
        a, b = side(first, spec), side(second, spec)
        if a.points.shape[1] != b.points.shape[1]:
            raise MethodError(
                f"parameters.{field}: vectors of {b.points.shape[1]} numbers cannot be compared with those of "
                f"{a.points.shape[1]} in the job's data set"
            )
        classes = class_costs(a, b, ground.p) if ground.labelled else None
    except InputError as error:
        raise MethodError(str(error)) from error
    rows, columns = (draw(len(dataset), max_samples, job.seed) for dataset in (first, second))
    return Pair(first, second, a, b, rows, columns, ground, classes)


def load_both(job: JobContext, other: str, field: str) -> tuple[Dataset, Dataset]:
    """The job's data set and ``other``, which hold the same kind of samples.

    Args:
        field: the parameter that named ``other``, for messages.

    Raises:
        MethodError: one is missing, or they hold different things.
    """
    if job.dataset_id is None:
        raise MethodError("dataset: name the data set that the job works on")
    loaded = []
    for name, dataset_id in (("dataset", job.dataset_id), (f"parameters.{field}", other)):
        try:
            loaded.append(job.dataset(dataset_id))
        except KeyError as error:
            raise MethodError(f"{name}: there is no data set {dataset_id}") from error
    first, second = loaded
    if first.kind != second.kind:
        raise MethodError(f"parameters.{field}: it holds {second.kind}, the job's data set {first.kind}")
    return first, second
