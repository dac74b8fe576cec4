"""The surroundings of a long computation: progress, metrics, cancellation, resumable state, artifacts.

Training and analysis code sees only :class:`Run`; the command line gives it a :class:`LocalRun`, a queued job
one whose writes are fenced (:mod:`workers`).
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from models.core.feedback import Comparison, read_comparisons

State = tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]


class Cancelled(Exception):  # noqa: N818 - not an error: the user asked for it
    """The user cancelled the run; raised at the next look at the flag."""


class Run(ABC):
    """What a long computation may ask of its surroundings.

    Attributes:
        seed: every random generator of the run derives from it.
        device: torch device name, e.g. ``cpu`` or ``cuda``.
        scratch: an empty folder that lives as long as the run.
    """

    def __init__(self, *, seed: int, device: str, scratch: Path) -> None:
        self.seed = seed
        self.device = device
        self.scratch = scratch

    @abstractmethod
    def progress(self, fraction: float, stage: str, message: str = "") -> None:
        """Report ``fraction`` in [0, 1] of the whole run.

        Raises:
            Cancelled: the user asked for the run to stop.
        """

    @abstractmethod
    def metric(self, name: str, value: float, step: int) -> None:
        """Report one point of a curve."""

    @abstractmethod
    def log(self, message: str) -> None:
        """One line for a person who watches."""

    @abstractmethod
    def save_state(self, tensors: Mapping[str, npt.NDArray[Any]], meta: Mapping[str, Any]) -> None:
        """Durably replace the resume point: arrays plus JSON-serialisable facts."""

    @abstractmethod
    def load_state(self) -> State | None:
        """The last resume point, or None on a first attempt."""

    @abstractmethod
    def artifact(self, name: str, media_type: str) -> Path:
        """A path to write the artifact ``name`` to; it is kept when the run ends."""

    def comparisons(self) -> list[Comparison]:
        """What people preferred, for a training that learns from it."""
        return []


class LocalRun(Run):
    """A run in a folder of this machine, for the command line and tests.

    Args:
        folder: artifacts and the resume point are written here.
        report: called with ``(fraction, stage, message)`` at each progress report.
        comparisons: a JSONL file of them, as the service exports it.
    """

    def __init__(
        self,
        folder: Path,
        *,
        seed: int = 0,
        device: str = "cpu",
        report: Callable[[float, str, str], None] | None = None,
        log: Callable[[str], None] | None = None,
        comparisons: Path | None = None,
    ) -> None:
        scratch = folder / "scratch"
        scratch.mkdir(parents=True, exist_ok=True)
        super().__init__(seed=seed, device=device, scratch=scratch)
        self.folder = folder
        self.metrics: dict[str, list[tuple[int, float]]] = {}
        self._report = report
        self._log = log
        self._comparisons = comparisons

    def progress(self, fraction: float, stage: str, message: str = "") -> None:
        """Pass the report on."""
        if self._report:
            self._report(fraction, stage, message)

    def metric(self, name: str, value: float, step: int) -> None:
        """Keep the point in :attr:`metrics`."""
        self.metrics.setdefault(name, []).append((step, value))

    def log(self, message: str) -> None:
        """Pass the line on."""
        if self._log:
            self._log(message)

    def save_state(self, tensors: Mapping[str, npt.NDArray[Any]], meta: Mapping[str, Any]) -> None:
        """Write ``state.npz`` by rename, so that a kill leaves the old or the new one."""
        write_state(self.folder / "state.npz", tensors, meta)

    def load_state(self) -> State | None:
        """Read ``state.npz`` where there is one."""
        path = self.folder / "state.npz"
        return read_state(path) if path.exists() else None

    def artifact(self, name: str, media_type: str) -> Path:
        """A path in the run's folder."""
        return self.folder / name

    def comparisons(self) -> list[Comparison]:
        """Read the file where there is one.

        Raises:
            InputError: a line is not a comparison; names it.
        """
        return read_comparisons(self._comparisons) if self._comparisons is not None else []


_META = "__meta__"


def write_state(path: Path, tensors: Mapping[str, npt.NDArray[Any]], meta: Mapping[str, Any]) -> None:
    """Write arrays and facts as one npz file, replacing ``path`` in one step."""
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        dump_state(file, tensors, meta)
    partial.replace(path)


def dump_state(file: IO[bytes], tensors: Mapping[str, npt.NDArray[Any]], meta: Mapping[str, Any]) -> None:
    """Write arrays and facts as one npz file to an open one."""
    encoded = np.frombuffer(json.dumps(dict(meta)).encode(), dtype=np.uint8)
    np.savez(file, **{_META: encoded}, **dict(tensors))  # type: ignore[arg-type]


def read_state(path: Path) -> State:
    """Read what :func:`write_state` wrote; never unpickles."""
    with path.open("rb") as file:
        return load_state(file)


def load_state(file: IO[bytes]) -> State:
    """Read what :func:`dump_state` wrote; never unpickles."""
    with np.load(file, allow_pickle=False) as archive:
        tensors = {name: archive[name] for name in archive.files if name != _META}
        return tensors, json.loads(archive[_META].tobytes())
