"""The scenarios of kill -9: each part several times, and any part at any time, under mixed load."""

import asyncio
import random
import statistics
import time

from tests.benchmarks.report import Report
from tests.resilience.faults import ROLES
from tests.resilience.outcome import under_load

CALM_S = 2.0
PAUSES_S = (1.0, 14.0)
SHOWN = 5
COLUMNS = [
    "killed",
    "times",
    "requests",
    "right",
    "failed: in flight in it",
    "refused while down",
    "failed otherwise",
    "wrong",
    "jobs acknowledged",
    "lost",
    "stuck",
    "failed",
    "two results",
    "uploads",
    "lost",
    "recovery: median",
    "most",
]


def kill_one_role(stack, asked, role, times):
    """Kill ``role`` so often, each time after the service has recovered."""

    async def faults(injector):
        for _ in range(times):
            await asyncio.sleep(CALM_S)
            await injector.inject(role)
        await asyncio.sleep(CALM_S)

    return under_load(stack, asked, role, faults)


def kill_at_random(stack, asked, minutes, seed):
    """Kill any part at any time, whether the last has recovered or not."""
    rng = random.Random(seed)

    async def faults(injector):
        until = time.monotonic() + 60 * minutes
        while time.monotonic() < until:
            await asyncio.sleep(rng.uniform(*PAUSES_S))
            injector.start(rng.choice(ROLES))
        await injector.settle()

    return under_load(stack, asked, f"any, for {minutes:g} minutes", faults, seed=seed, submitters=2)


def report(outcomes):
    table = Report("kill -9 under mixed load", COLUMNS)
    for outcome in outcomes:
        table.add(*_cells(outcome))
    for outcome in outcomes:
        broken = outcome.broken()
        table.notes += [f"BROKEN, {outcome.name}: {what}" for what in broken[:SHOWN]]
        if len(broken) > SHOWN:
            table.notes.append(f"BROKEN, {outcome.name}: and {len(broken) - SHOWN} more")
    return table


def _cells(outcome):
    reasons, found = outcome.reasons(), outcome.audit
    seconds = [fault.seconds for fault in outcome.faults if fault.seconds is not None] or [float("nan")]
    numbers = [
        len(outcome.faults),
        len(outcome.samples),
        outcome.right,
        reasons["in flight"],
        reasons["refused"],
        reasons["none"],
        outcome.wrong,
        found.jobs,
        len(found.lost),
        len(found.stuck),
        f"{len(found.failed)}" + (f" (+{found.given_up} killed three times)" if found.given_up else ""),
        len(found.doubled),
        found.uploads,
        len(found.uploads_lost),
    ]
    return [outcome.name, *map(str, numbers), f"{statistics.median(seconds):.1f} s", f"{max(seconds):.1f} s"]
