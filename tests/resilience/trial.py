"""One row of the second table: something other than a kill, what was measured, and what of the promise was broken."""

import statistics
from dataclasses import dataclass, field

from tests.benchmarks.report import Report

SHOWN = 5


class NotPossible(Exception):
    """The fault cannot be made on this machine; the message says why."""


@dataclass
class Trial:
    """What was done and what came of it.

    Attributes:
        measured: figures, in words.
        broken: each broken promise, in words.
        skipped: why it could not be done.
    """

    name: str
    done: str
    measured: str = ""
    broken: list[str] = field(default_factory=list)
    skipped: str = ""


def of(outcome, done, measured, broken=()):
    """The trial of a scenario that ran under load."""
    reasons, found = outcome.reasons(), outcome.audit
    counts = f"{len(outcome.samples)} requests, {outcome.right} right, {outcome.wrong} wrong"
    if sum(reasons.values()):
        counts += f", {reasons['refused']} refused as promised, {reasons['none']} failed"
    counts += f"; {found.jobs} jobs, {found.uploads} uploads"
    counts += f" ({found.given_up} jobs ended as promised without a result)" if found.given_up else ""
    return Trial(outcome.name, done, f"{measured}; {counts}", [*broken, *outcome.broken()])


def report(trials):
    table = Report("Other faults", ["fault", "what was done", "measured", "kept"])
    for trial in trials:
        kept = "skipped" if trial.skipped else ("NO" if trial.broken else "yes")
        table.add(trial.name, trial.done, trial.skipped or trial.measured, kept)
        table.notes += [f"BROKEN, {trial.name}: {what}" for what in trial.broken[:SHOWN]]
        if len(trial.broken) > SHOWN:
            table.notes.append(f"BROKEN, {trial.name}: and {len(trial.broken) - SHOWN} more")
    return table


def quantiles(seconds):
    """Median and 99th percentile in words."""
    ordered = sorted(seconds)
    if not ordered:
        return "none"
    return (
        f"p50 {1000 * statistics.median(ordered):.0f} ms, p99 {1000 * ordered[int(0.99 * (len(ordered) - 1))]:.0f} ms"
    )
