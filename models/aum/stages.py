"""A run of several trainings that continues where it was killed: finished results and one training in progress."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from models.core.run import Run
from models.core.training import Arrays, under

_REPORT_SECONDS = 0.1
_TRAINING_SHARE = 0.97  # of the progress; the rest is ranking and report


class Stages:
    """Named stages of known cost in one durable state, so that nothing finished is computed again.

    Args:
        work: cost of each stage in any common unit, in the order in which they run.
    """

    def __init__(self, run: Run, work: Mapping[str, float]) -> None:
        self.run = run
        self._work = dict(work)
        self._total = sum(work.values())
        self._reported = 0.0
        self._finished: dict[str, Arrays] = {}
        self._current: tuple[str, Arrays, dict[str, Any]] | None = None
        state = run.load_state()
        if state is not None:
            self._read(*state)

    def _read(self, arrays: Arrays, meta: Mapping[str, Any]) -> None:
        for name in meta["finished"]:
            self._finished[name] = under(f"finished/{name}|", arrays)
        if meta["current"] is not None:
            self._current = (meta["current"], under("current/", arrays), dict(meta["facts"]))

    def result(self, name: str) -> Arrays | None:
        """What :meth:`finish` stored for this stage, or None when it has not finished."""
        return self._finished.get(name)

    def resume_point(self, name: str) -> tuple[Arrays, dict[str, Any]] | None:
        """The last :meth:`save` of this stage, or None when it has to start."""
        if self._current is None or self._current[0] != name:
            return None
        return self._current[1], self._current[2]

    def advance(self, name: str, within: float, message: str) -> None:
        """Report that the stage is done to ``within`` in [0, 1]; at most ten times a second.

        Raises:
            Cancelled: the user asked for the run to stop.
        """
        now = time.monotonic()
        if now - self._reported < _REPORT_SECONDS:
            return
        self._reported = now
        before = sum(cost for stage, cost in self._work.items() if stage in self._finished)
        fraction = (before + within * self._work[name]) / self._total
        self.run.progress(_TRAINING_SHARE * fraction, name, message)

    def save(self, name: str, arrays: Arrays, facts: Mapping[str, Any]) -> None:
        """Replace the resume point of the stage that runs."""
        self._current = (name, arrays, dict(facts))
        self._write()

    def finish(self, name: str, result: Arrays) -> None:
        """Keep the stage's result and drop its resume point."""
        self._finished[name] = result
        self._current = None
        self._write()

    def _write(self) -> None:
        stored = {f"finished/{name}|{key}": a for name, result in self._finished.items() for key, a in result.items()}
        meta: dict[str, Any] = {"finished": list(self._finished), "current": None}
        if self._current is not None:
            name, arrays, facts = self._current
            stored |= {f"current/{key}": array for key, array in arrays.items()}
            meta |= {"current": name, "facts": facts}
        self.run.save_state(stored, meta)
