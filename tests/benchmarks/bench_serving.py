"""Embeddings of pictures over HTTP against peers: all servers up at once, slices of load in turn, medians of rounds."""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import httpx
import numpy as np
import psutil

from tests.benchmarks.environments import python_with
from tests.benchmarks.load import measure
from tests.benchmarks.report import Report
from tests.contract.examples import png
from tests.e2e.stack import ROOT, Stack, free_port

MODEL = "align-uniform"
PICTURES = Path(__file__).parents[1] / "data" / "fashion-mnist-600.npz"
CLIENTS = (1, 8, 32, 128)
PEERS = Path(__file__).parent / "peers"
OURS = "Deepnight"
PLAIN, LITSERVE = "FastAPI, model in process", "LitServe, batched"


def openai(picture):
    return {"model": MODEL, "input": picture}


def one_of_list(picture):
    return {"input": [picture]}


def tensor(picture):
    return {"inputs": [{"name": "input", "shape": [1, 1], "datatype": "BYTES", "data": [picture]}]}


@dataclass(frozen=True)
class Contender:
    """A peer: its script and arguments, the requirements that need an environment of its own, its route and body."""

    command: tuple[str, ...]
    requirements: tuple[str, ...] = ()
    path: str = "/v1/embeddings"
    body: Callable[[str], dict] = openai


MLSERVER = ("mlserver==1.7.1", "uvloop==0.21.0")  # its workers cannot start under later ones
CONTENDERS = {
    PLAIN: Contender(("plain.py",)),
    f"{PLAIN}, batched": Contender(("plain.py", "batched")),
    LITSERVE: Contender(("lit.py",)),
    "BentoML 1.4, batched": Contender(("bento.py",), ("bentoml==1.4.40",), body=one_of_list),
    "MLServer 1.7, batched": Contender(("mlserve.py",), MLSERVER, f"/v2/models/{MODEL}/infer", tensor),
}


class Peer:
    """A peer's server as a process.

    Attributes:
        url: of its route.
        bodies: requests for the same pictures as everybody's.
        headers: of each request.
    """

    headers: ClassVar = {}

    def __init__(self, contender, python, pictures):
        port = free_port()
        self.url = f"http://127.0.0.1:{port}{contender.path}"
        self.bodies = [contender.body(picture) for picture in pictures]
        script, *arguments = contender.command
        command = [python, str(PEERS / script), str(port), *arguments]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(command, cwd=ROOT, env=_environment(), **quiet)

    def stop(self):
        family = [*psutil.Process(self.process.pid).children(recursive=True), psutil.Process(self.process.pid)]
        for process in family:
            process.terminate()
        for process in psutil.wait_procs(family, timeout=5)[1]:
            process.kill()


class Ours:
    """The route of an instance of the service; attributes as of :class:`Peer`."""

    def __init__(self, stack, pictures, key=None):
        self.url = f"{stack.base_url}/v1/embeddings"
        self.bodies = [openai(picture) for picture in pictures]
        self.headers = {"Authorization": f"Bearer {key}"} if key else {}


def _environment():
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def run(*, quick):
    images = pictures()
    pythons = {name: _python(contender) for name, contender in CONTENDERS.items()}
    rounds, seconds = (1, 1) if quick else (5, 2)
    with tempfile.TemporaryDirectory() as home:
        ours = Stack(Path(home)).start()
        peers = {name: Peer(CONTENDERS[name], python, images) for name, python in pythons.items() if python}
        try:
            ours.wait_ready()
            servers = {OURS: Ours(ours, images), **peers}
            for server in servers.values():
                wait_answered(server)
            idle = memory(ours)
            loads = {clients: in_turn(servers, clients, rounds, seconds) for clients in CLIENTS}
        finally:
            ours.stop()
            for peer in peers.values():
                peer.stop()
    return [_report(loads, _raw_rate(), idle)]


def _python(contender):
    return python_with(*contender.requirements) if contender.requirements else sys.executable


def pictures():
    """Real pictures, Fashion-MNIST's, as PNG in base64."""
    with np.load(PICTURES) as archive:
        return [png(image.reshape(28, 28, 1)) for image in archive["images"][:64]]


def wait_answered(server):
    """Wait until a server answers as it should."""
    until = time.monotonic() + 90
    while time.monotonic() < until:
        try:
            if httpx.post(server.url, json=server.bodies[0], headers=server.headers, timeout=30).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.25)
    raise TimeoutError(server.url)


def in_turn(servers, clients, rounds, seconds):
    """Slices of load on each server, one after the other, in rounds: a load per round and name."""
    seen = {name: [] for name in servers}
    for _ in range(rounds):
        for name, server in servers.items():
            seen[name].append(measure(server.url, server.bodies, clients, seconds, headers=server.headers))
    return seen


def memory(stack):
    """MiB of everything that an instance runs, shared pages counted once (PSS)."""
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
    added = statistics.median(o.p50 - s.p50 for o, s in zip(loads[1][OURS], loads[1][PLAIN], strict=True))
    report.notes += [
        f"ratios are medians of ratios within a round; {errors} failed requests in all",
        f"the method alone, batches of 32, no HTTP: {raw:.0f} pictures/s",
        f"added to the p50 of FastAPI in process at one client: {added:.1f} ms",
        "goals: at 32 clients 2x LitServe and 0.95x of the batched FastAPI, at 128 1.5x LitServe; at one 1.5x LitServe "
        "and 2 ms added",
        "BentoML's batchable routes take a list, MLServer batches its own protocol: other bodies, the same pictures",
        f"memory of the whole idle service (PSS): {idle:.0f} MiB",
    ]
    return report
