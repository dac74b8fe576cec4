"""Several measurements in one run: what is finished is not done again after a kill, what is not goes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt

from models.core.run import Run, State
from models.core.training import under

Row = dict[str, float | int | str | None]
_PREFIX = "part/"


class Part(Run):
    """One part of a run: a slice of its progress, curves under a title, and a resume point of its own."""

    def __init__(self, outer: Run, titles: Sequence[str], rows: list[dict[str, Any]], state: State | None) -> None:
        number = len(rows)
        scratch = outer.scratch / f"part-{number}"
        scratch.mkdir(exist_ok=True)
        super().__init__(seed=outer.seed, device=outer.device, scratch=scratch)
        self._outer, self._titles, self._rows, self._state = outer, titles, rows, state
        self._title, self._first, self._share = titles[number], number / len(titles), 1 / len(titles)

    def progress(self, fraction: float, stage: str, message: str = "") -> None:
        """Report the part's slice under its title."""
        said = f"{stage}: {message}" if message else stage
        self._outer.progress(self._first + self._share * fraction, self._title, said)

    def metric(self, name: str, value: float, step: int) -> None:
        """Report a point of the curve ``name, title``."""
        self._outer.metric(f"{name}, {self._title}", value, step)

    def log(self, message: str) -> None:
        """Pass the line on with the title."""
        self._outer.log(f"{self._title}: {message}")

    def save_state(self, tensors: Mapping[str, npt.NDArray[Any]], meta: Mapping[str, Any]) -> None:
        """Keep the resume point beside the finished rows."""
        self._state = dict(tensors), dict(meta)
        arrays = {_PREFIX + name: array for name, array in tensors.items()}
        _save(self._outer, self._titles, self._rows, arrays, dict(meta))

    def load_state(self) -> State | None:
        """The part's own resume point."""
        return self._state

    def artifact(self, name: str, media_type: str) -> Path:
        """A path in the outer run."""
        return self._outer.artifact(name, media_type)


def measure_parts(
    run: Run, titles: Sequence[str], measure: Callable[[int, Run], Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """The rows of ``measure(number, part)``, JSON-serialisable, one a title; goes on from the run's resume point.

    A resume point of other titles, perhaps of an earlier release, is dropped with a log line.

    Raises:
        Cancelled: the user asked for it.
    """
    rows, current = _resume_point(run, titles)
    for number in range(len(rows), len(titles)):
        row = dict(measure(number, Part(run, titles, rows, current)))
        current = None
        rows.append(row)
        _save(run, titles, rows, {}, None)
    return rows


def _save(
    run: Run,
    titles: Sequence[str],
    rows: list[dict[str, Any]],
    arrays: Mapping[str, npt.NDArray[Any]],
    part: dict[str, Any] | None,
) -> None:
    run.save_state(arrays, {"titles": list(titles), "rows": rows, "part": part})


def _resume_point(run: Run, titles: Sequence[str]) -> tuple[list[dict[str, Any]], State | None]:
    """The finished rows, and the state of the part that was at work."""
    stored = run.load_state()
    if stored is None:
        return [], None
    arrays, meta = stored
    if meta.get("titles") != list(titles):
        run.log("the resume point is of other measurements: starting anew")
        return [], None
    current = None if meta["part"] is None else (under(_PREFIX, arrays), dict(meta["part"]))
    return [dict(row) for row in meta["rows"]], current
