"""Embeddings of pictures over HTTP against peers: all servers up at once, slices of load in turn, medians of rounds."""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import numpy as np
import psutil

from tests.benchmarks.load import measure
from tests.benchmarks.report import Report
from tests.contract.examples import png
from tests.e2e.stack import ROOT, Stack, free_port

MODEL = "align-uniform"
PICTURES = Path(__file__).parents[1] / "data" / "fashion-mnist-600.npz"
CLIENTS = (1, 8, 32, 128)
PEERS = Path(__file__).parent / "peers"
COMMANDS = {
    "FastAPI, model in process": ("plain.py",),
    "FastAPI, model in process, batched": ("plain.py", "batched"),
    "LitServe, batched": ("lit.py",),
}
OURS = "Deepnight"


class Peer:
    """A peer's server as a process."""

    def __init__(self, script, *arguments):
        self.base_url = f"http://127.0.0.1:{(port := free_port())}"
        command = [sys.executable, str(PEERS / script), str(port), *arguments]
        self.process = subprocess.Popen(command, cwd=ROOT, env=_environment(), stderr=subprocess.DEVNULL)

    def stop(self):
        family = [*psutil.Process(self.process.pid).children(recursive=True), psutil.Process(self.process.pid)]
        for process in family:
            process.terminate()
        psutil.wait_procs(family, timeout=5)


def _environment():
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def run(*, quick):
    bodies = _bodies()
    rounds, seconds = (1, 1) if quick else (5, 2)
    with tempfile.TemporaryDirectory() as home:
        ours = Stack(Path(home)).start()
        peers = {name: Peer(*command) for name, command in COMMANDS.items()}
        try:
            ours.wait_ready()
            servers = {OURS: ours, **peers}
            for server in servers.values():
                _wait(server.base_url, bodies[0])
            idle = _memory(ours)
            loads = {clients: _rounds(servers, bodies, clients, rounds, seconds) for clients in CLIENTS}
        finally:
            ours.stop()
            for peer in peers.values():
                peer.stop()
    return [_report(loads, _raw_rate(), idle)]


def _bodies():
    """Requests for real pictures, Fashion-MNIST's."""
    with np.load(PICTURES) as archive:
        images = archive["images"][:64]
    return [{"model": MODEL, "input": png(image.reshape(28, 28, 1))} for image in images]


def _wait(base_url, body):
    until = time.monotonic() + 60
    while time.monotonic() < until:
        try:
            if httpx.post(f"{base_url}/v1/embeddings", json=body, timeout=30).status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.25)
    raise TimeoutError(base_url)


def _rounds(servers, bodies, clients, rounds, seconds):
    seen = {name: [] for name in servers}
    for _ in range(rounds):
        for name, server in servers.items():
            seen[name].append(measure(f"{server.base_url}/v1/embeddings", bodies, clients, seconds))
    return seen


def _memory(stack):
    return sum(process.memory_full_info().pss for process in stack.processes()) / (1 << 20)


def _raw_rate():
    """Pictures a second of the method itself in batches of 32, nothing around it."""
    sys.path.insert(0, str(PEERS))
    from embedding import Encoder

    encoder = Encoder()
    images = np.zeros((32, *encoder.shape), dtype=np.uint8)
    started, count = time.perf_counter(), 0
    while time.perf_counter() - started < 2:
        encoder(images)
        count += 32
    return count / (time.perf_counter() - started)


def _report(loads, raw, idle):
    columns = ["server", *(f"{what}, {c} clients" for c in loads for what in ("requests/s", "p50 / p99 ms"))]
    columns += [f"Deepnight / it, {c}" for c in loads]
    report = Report("POST /v1/embeddings, one Fashion-MNIST picture (28x28 PNG) a request", columns)
    for name in loads[1]:
        cells = []
        for slices in loads.values():
            cells.append(f"{statistics.median(s.rate for s in slices[name]):.0f}")
            p50, p99 = (statistics.median(getattr(s, p) for s in slices[name]) for p in ("p50", "p99"))
            cells.append(f"{p50:.1f} / {p99:.1f}")
        ratios = [
            statistics.median(o.rate / s.rate for o, s in zip(slices[OURS], slices[name], strict=True))
            for slices in loads.values()
        ]
        report.add(name, *cells, *(f"{ratio:.2f}" for ratio in ratios))
    errors = sum(s.errors for slices in loads.values() for each in slices.values() for s in each)
    added = statistics.median(
        o.p50 - s.p50 for o, s in zip(loads[1][OURS], loads[1]["FastAPI, model in process"], strict=True)
    )
    report.notes += [
        f"ratios are medians of ratios within a round; {errors} failed requests in all",
        f"the method alone, batches of 32, no HTTP: {raw:.0f} pictures/s",
        f"added to the p50 of FastAPI in process at one client: {added:.1f} ms",
        "goals: at 32 clients 2x LitServe and 0.95x of the batched FastAPI, at 128 1.5x LitServe; at one 1.5x LitServe "
        "and 2 ms added",
        f"memory of the whole idle service (PSS): {idle:.0f} MiB",
    ]
    return report
