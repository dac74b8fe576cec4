"""The scenarios of kill -9: each part several times, and any part at any time, under mixed load."""

import asyncio
import random
import statistics
import time
from collections import Counter
from dataclasses import dataclass

from tests.benchmarks.report import Report
from tests.resilience.audit import Audit, audit
from tests.resilience.faults import ROLES, Injector, explanation
from tests.resilience.load import Load

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


@dataclass(frozen=True)
class Outcome:
    """One row of the table."""

    name: str
    samples: list
    faults: list
    audit: Audit

    def counts(self):
        reasons = Counter(explanation(sample, self.faults) for sample in self.samples if sample.outcome == "failed")
        outcomes = Counter(sample.outcome for sample in self.samples)
        return outcomes, reasons

    def broken(self):
        """What was promised and not kept, in words; empty when all is well."""
        outcomes, reasons = self.counts()
        said = list(self.audit.broken)
        said += [f"never recovered: {fault.role}" for fault in self.faults if fault.back_at is None]
        if reasons["none"] or outcomes["wrong"]:
            said += [
                f"{sample.kind} {sample.outcome}: {sample.why} {sample.text} ({sample.ended - sample.started:.1f} s)"
                for sample in self.samples
                if sample.outcome == "wrong" or (sample.outcome == "failed" and not self._explained(sample))
            ]
        return said

    def _explained(self, sample):
        return explanation(sample, self.faults) != "none"

    def cells(self):
        outcomes, reasons = self.counts()
        found = self.audit
        seconds = [fault.seconds for fault in self.faults if fault.seconds is not None] or [float("nan")]
        numbers = [
            len(self.faults),
            len(self.samples),
            outcomes["right"],
            reasons["in flight"],
            reasons["refused"],
            reasons["none"],
            outcomes["wrong"] + len(found.wrong),
            found.jobs,
            len(found.lost),
            len(found.stuck),
            f"{len(found.failed)}" + (f" (+{found.given_up} killed three times)" if found.given_up else ""),
            len(found.doubled),
            found.uploads,
            len(found.uploads_lost),
        ]
        return [self.name, *map(str, numbers), f"{statistics.median(seconds):.1f} s", f"{max(seconds):.1f} s"]


def kill_one_role(stack, asked, role, times):
    """Kill ``role`` so often, each time after the service has recovered."""

    async def faults(injector):
        for _ in range(times):
            await asyncio.sleep(CALM_S)
            await injector.inject(role)

    return _under_load(stack, asked, role, faults)


def kill_at_random(stack, asked, minutes, seed):
    """Kill any part at any time, whether the last has recovered or not."""
    rng = random.Random(seed)

    async def faults(injector):
        until = time.monotonic() + 60 * minutes
        while time.monotonic() < until:
            await asyncio.sleep(rng.uniform(*PAUSES_S))
            injector.start(rng.choice(ROLES))
        await injector.settle()

    return _under_load(stack, asked, f"any, for {minutes:g} minutes", faults, seed)


def _under_load(stack, asked, name, faults, seed=0):
    questions, jobs = asked
    load = Load(stack.base_url, questions, jobs, seed=seed)
    probe = next(question for question in questions if question.kind == "embeddings")
    injector = Injector(stack, probe, seed)

    async def run():
        async with load.running():
            await faults(injector)
            await asyncio.sleep(CALM_S)

    asyncio.run(run())
    with stack.client() as api:
        return Outcome(name, load.samples, injector.faults, audit(api, load, injector))


def report(outcomes):
    table = Report("kill -9 under mixed load", COLUMNS)
    for outcome in outcomes:
        table.add(*outcome.cells())
    for outcome in outcomes:
        broken = outcome.broken()
        table.notes += [f"BROKEN, {outcome.name}: {what}" for what in broken[:SHOWN]]
        if len(broken) > SHOWN:
            table.notes.append(f"BROKEN, {outcome.name}: and {len(broken) - SHOWN} more")
    return table
