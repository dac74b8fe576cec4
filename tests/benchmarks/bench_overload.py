"""Ten times the clients that saturate the service, and more: how much of the useful work is left."""

import statistics
import tempfile
from pathlib import Path

from tests.benchmarks.bench_serving import Ours, pictures, wait_answered
from tests.benchmarks.load import measure
from tests.benchmarks.report import Report
from tests.e2e.stack import Stack

SATURATED = 128
CLIENTS = (SATURATED, 4 * SATURATED, 10 * SATURATED, 40 * SATURATED)
DEADLINE_S = 1


def run(*, quick):
    rounds, seconds = (1, 2) if quick else (3, 5)
    seen = {clients: [] for clients in CLIENTS}
    with tempfile.TemporaryDirectory() as home:
        stack = Stack(Path(home)).start()
        try:
            stack.wait_ready()
            server = Ours(stack, pictures())
            wait_answered(server)
            measure(server.url, server.bodies, 32, seconds)
            for _ in range(rounds):
                for clients in CLIENTS:
                    seen[clients].append(_slice(server, clients, seconds))
        finally:
            stack.stop()
    return [_report(seen)]


def _slice(server, clients, seconds):
    headers = {"Prefer": f"wait={DEADLINE_S}"}
    return measure(server.url, server.bodies, clients, seconds, headers=headers, deadline_s=DEADLINE_S)


def _report(seen):
    columns = [
        "clients",
        "answers in time/s",
        "share of the goodput",
        "refused or late/s",
        "p50 / p99 ms of all answers",
    ]
    report = Report("Overload: embeddings with a deadline of a second", columns)
    for clients, slices in seen.items():
        good, rate, p50, p99 = (
            statistics.median(getattr(each, what) for each in slices) for what in ("good", "rate", "p50", "p99")
        )
        share = statistics.median(b.good / a.good for a, b in zip(seen[SATURATED], slices, strict=True))
        cells = f"{good:.0f}", f"{share:.2f}", f"{rate - good:.0f}", f"{p50:.0f} / {p99:.0f}"
        report.add(f"{clients} ({clients // SATURATED}x)", *cells)
    report.notes.append(
        "goal: at ten times the clients 0.9 of the goodput; every client sends its next request the moment it is "
        "answered, also after a 503, and tells its deadline (`Prefer: wait=1`)"
    )
    return report
