"""What crosses between gateway and replica: one call's inputs and its reply. Never imports torch."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from models.core.outputs import Sides
from models.core.versions import Version

CALLS_PER_REPLICA = 16


@dataclass(frozen=True)
class Call:
    """One batch for a replica.

    Attributes:
        model: ``slug@version``.
        revision: when the version was made, at least: a name can be deleted and given again.
        params: the parameters as JSON.
        inputs: one array of pictures or vectors, or a list of texts or sides.
        request_ids: of the requests whose inputs these are, for the logs.
        traces: of those of them that are traced, as ``traceparent``.
    """

    model: str
    revision: float
    params: bytes
    inputs: Any
    request_ids: tuple[str, ...] = ()
    traces: tuple[str, ...] = ()


@dataclass(frozen=True)
class Refused:
    """The method refuses an input; the message is for the user."""

    message: str


@dataclass(frozen=True)
class Failed:
    """The method failed on an input that it should have taken."""

    message: str


@dataclass(frozen=True)
class Reply:
    """A replica's reply.

    Attributes:
        outputs: one an input: an array whose rows they are, or a list in which :class:`Refused` and
            :class:`Failed` stand for those that failed.
        failure: why nothing could be predicted.
        seconds: spent predicting.
        load_seconds: spent loading the version, told once by each replica.
        evicted: ids of versions that made room since the last reply.
        preview: whether the final outputs are still to come.
        first: whether it is the replica's first.
        cpu_seconds: processor time of the replica's process since its last reply.
    """

    outputs: Any = field(default_factory=list)
    failure: str | None = None
    seconds: float = 0.0
    load_seconds: float | None = None
    evicted: tuple[str, ...] = ()
    preview: bool = False
    first: bool = False
    cpu_seconds: float = 0.0


class CallFailedError(RuntimeError):
    """A call could not be made: the replica died again and again, or the version cannot be loaded."""


class Backend(Protocol):
    """Where calls go."""

    async def start(self) -> None:
        """Make the backend ready; takes as long as that takes."""

    async def replicas(self) -> Mapping[str, Mapping[str, int]]:
        """Number of replicas of each deployment by state; empty where there are none."""

    async def stop(self) -> None:
        """End everything that was started."""

    async def call(self, version: Version, call: Call) -> Reply:
        """Perform one call; cancelling it cancels the work where that is possible.

        Raises:
            CallFailedError: no replica could perform it.
        """

    def stream(self, version: Version, call: Call, previews: int) -> AsyncGenerator[Reply]:
        """Perform one call and yield at most ``previews`` previews before its reply; closing it ends the work.

        Raises:
            CallFailedError: no replica could perform it.
        """


def stack(inputs: Sequence[Any]) -> Any:
    """Pictures or vectors of one shape as one array; everything else as a list."""
    first = inputs[0]
    if isinstance(first, np.ndarray) and all(item.shape == first.shape for item in inputs):
        return np.stack(inputs)
    return list(inputs)


COUPLING_ENTRY_BYTES = 24


def payload_bytes(inputs: Any) -> int:
    """Size of what travels, to choose how: arrays and texts, or the couplings asked for where they are larger."""
    if isinstance(inputs, np.ndarray):
        return inputs.nbytes
    return sum(_item_bytes(item) for item in inputs)


def _item_bytes(item: Any) -> int:
    if isinstance(item, Sides):
        n, m = len(item.a.points), len(item.b.points)
        sent = item.a.points.nbytes + item.b.points.nbytes + (0 if item.cost is None else item.cost.nbytes)
        return max(sent, n * m * COUPLING_ENTRY_BYTES if item.return_coupling else 0)
    return len(item) if isinstance(item, str) else int(getattr(item, "nbytes", 0))
