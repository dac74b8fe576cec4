"""From the command to the first answers: ready, and each method from cold."""

import statistics
import tempfile
import time
from pathlib import Path

import httpx

from models.core.registry import Registry
from tests.benchmarks.report import Report
from tests.contract.examples import example_request
from tests.e2e.stack import Stack


def run(*, quick):
    starts = [_start() for _ in range(1 if quick else 3)]
    report = Report("From the command to answers", ["what", "median", "most"])
    ready, placed = [ready for ready, _ in starts], [first for _, first in starts]
    rows = {"`deepnight serve` until ready": ready}
    rows |= {f"`{slug}`, cold, to its first answer": [first[slug] for first in placed] for slug in placed[0]}
    for what, seconds in rows.items():
        report.add(what, f"{statistics.median(seconds):.2f} s", f"{max(seconds):.2f} s")
    report.notes.append(f"{len(starts)} starts; goals: ready within 15 s, a cold model's first answer within 3 s")
    return [report]


def _start():
    """Seconds until ready, and each method's seconds from cold to its first answer."""
    with tempfile.TemporaryDirectory() as home:
        started = time.perf_counter()
        stack = Stack(Path(home)).start()
        try:
            stack.wait_ready()
            ready = time.perf_counter() - started
            registry = Registry()
            return ready, {slug: _first_answer(stack, registry[slug]) for slug in registry}
        finally:
            stack.stop()


def _first_answer(stack, entry):
    route, body = example_request(entry, entry.shipped())
    started = time.perf_counter()
    httpx.post(f"{stack.base_url}{route}", json=body, timeout=60).raise_for_status()
    return time.perf_counter() - started
