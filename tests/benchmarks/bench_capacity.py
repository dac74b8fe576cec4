"""What one machine carries: every shipped method's route under load, alone, on the device that the replicas get."""

import os
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import torch

from models.core.registry import Registry
from tests.benchmarks.load import measure
from tests.benchmarks.report import Report
from tests.contract.examples import example_request
from tests.e2e.stack import Stack

CLIENTS = (1, 32)


def run(*, quick):
    registry = Registry()
    on_gpu = torch.cuda.is_available()
    settings = {"device": "cuda", "num_gpus": 0.5} if on_gpu else {"device": "cpu"}
    seconds = 1 if quick else 4
    rows = {}
    with tempfile.TemporaryDirectory() as home:
        stack = Stack(Path(home), **settings).start()
        try:
            stack.wait_ready()
            for slug in registry:
                rows[slug] = _measure(stack, registry[slug], seconds)
        finally:
            stack.stop()
    return [_report(rows, torch.cuda.get_device_name() if on_gpu else "CPU", seconds)]


def _measure(stack, entry, seconds):
    route, body = example_request(entry, entry.shipped())
    url = f"{stack.base_url}{route}"
    started = time.perf_counter()
    httpx.post(url, json=body, timeout=60).raise_for_status()
    first = time.perf_counter() - started
    for clients in CLIENTS:  # a batch size met for the first time may be compiled or cached
        measure(url, [body], clients, 1)
    loads = [measure(url, [body], clients, seconds) for clients in CLIENTS[:-1]]
    before = _cpu(stack)
    loads.append(last := measure(url, [body], CLIENTS[-1], seconds))
    return first, loads, {role: (spent - before[role]) / last.answers * 1e3 for role, spent in _cpu(stack).items()}


def _cpu(stack):
    """CPU seconds that the gateway, and Ray with its replicas, have used."""
    gateway = set(stack.pids("-m", "service"))
    spent = {"gateway": 0.0, "replica": 0.0}
    for process in stack.processes():
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            spent["gateway" if process.pid in gateway else "replica"] += times.user + times.system
    return spent


def _report(rows, device, seconds):
    columns = ["model", "cold model to first answer, s"]
    columns += [f"{what}, {c} client{'s' * (c > 1)}" for c in CLIENTS for what in ("requests/s", "p50 / p99 ms")]
    report = Report("What one replica carries, by method", columns)
    columns.append(f"CPU ms a request, gateway / replica, {CLIENTS[-1]} clients")
    for slug, (first, loads, spent) in rows.items():
        cells = [cell for load in loads for cell in (f"{load.rate:.1f}", f"{load.p50:.1f} / {load.p99:.1f}")]
        report.add(slug, f"{first:.2f}", *cells, f"{spent['gateway']:.2f} / {spent['replica']:.2f}")
    errors = sum(load.errors for _, loads, _ in rows.values() for load in loads)
    report.notes += [
        f"replica on: {device}; {os.cpu_count()} CPU cores for gateway, replica and the load itself",
        f"one item a request, the card's default parameters, {seconds} s each; {errors} failed requests",
        "the replica's share includes Ray's own processes",
    ]
    return report
