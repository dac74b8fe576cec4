"""The gateway inside Ray Serve behind HAProxy, as on a cluster, against the one of ``make serve``: both up, in turn."""

import statistics
import tempfile
from pathlib import Path

from tests.benchmarks.bench_serving import Ours, in_turn, pictures, wait_answered
from tests.benchmarks.report import Report
from tests.e2e.proxied import proxied
from tests.e2e.stack import Stack

CLIENTS = (1, 32, 128)
KEY = "dn_benchmark"
ONE, PROXIED = "one machine (`make serve`)", "behind HAProxy (`service.ingress`)"


def run(*, quick):
    rounds, seconds = (1, 1) if quick else (3, 2)
    images = pictures()
    with tempfile.TemporaryDirectory() as folder, proxied(Path(folder) / "proxied", KEY) as behind:
        alone = Stack(Path(folder) / "one", api_keys=KEY).start()
        try:
            alone.wait_ready()
            servers = {ONE: Ours(alone, images, KEY), PROXIED: Ours(behind, images, KEY)}
            for server in servers.values():
                wait_answered(server)
            loads = {clients: in_turn(servers, clients, rounds, seconds) for clients in CLIENTS}
        finally:
            alone.stop()
    return [_report(loads)]


def _report(loads):
    columns = ["gateway", *(f"{what}, {c} clients" for c in loads for what in ("requests/s", "p50 / p99 ms"))]
    report = Report("The ingress of a cluster, on one machine", columns)
    for name in (ONE, PROXIED):
        cells = []
        for slices in loads.values():
            cells.append(f"{statistics.median(each.rate for each in slices[name]):.0f}")
            p50, p99 = (statistics.median(getattr(each, p) for each in slices[name]) for p in ("p50", "p99"))
            cells.append(f"{p50:.1f} / {p99:.1f}")
        report.add(name, *cells)
    ratios = [
        statistics.median(b.rate / a.rate for a, b in zip(slices[ONE], slices[PROXIED], strict=True))
        for slices in loads.values()
    ]
    report.add("ratio", *(cell for ratio in ratios for cell in (f"{ratio:.2f}", "")))
    errors = sum(each.errors for slices in loads.values() for name in slices for each in slices[name])
    report.notes.append(f"goal: 0.8x; medians of ratios within a round; {errors} failed requests")
    return report
