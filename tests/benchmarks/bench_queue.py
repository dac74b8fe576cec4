"""How long a job waits for its process, against starting that process by hand, and what the idle queue costs."""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from tests.benchmarks.report import Report
from tests.e2e.stack import ROOT, Stack

SIDE = {"points": [[0.0, 0.0], [1.0, 0.0]]}
JOB = {"kind": "predict", "model": "robust-ot", "parameters": {"request": {"a": SIDE, "b": SIDE}}}


def run(*, quick):
    count = 2 if quick else 10
    with tempfile.TemporaryDirectory() as home:
        stack = Stack(Path(home)).start()
        try:
            stack.wait_ready()
            idle = _idle(stack, 2 if quick else 20)
            with stack.client() as api:
                jobs = [_finished(api) for _ in range(count)]
        finally:
            stack.stop()
    begun = [job["started_at"] - job["created_at"] for job in jobs]
    total = [job["finished_at"] - job["created_at"] for job in jobs]
    bare = [_bare_process() for _ in range(count)]
    report = Report("One small job after the other on an idle queue", ["what", "median", "most", "median / floor"])
    floor = statistics.median(bare)
    report.add("the floor: a new Python that imports torch and the method", f"{floor:.2f} s", f"{max(bare):.2f} s", "1")
    for what, seconds in (("queued until the job's process has begun", begun), ("queued until succeeded", total)):
        median = statistics.median(seconds)
        report.add(what, f"{median:.2f} s", f"{max(seconds):.2f} s", f"{median / floor:.2f}")
    report.notes.append(
        "idle: " + ", ".join(f"{name} {share:.1%} of a core, {memory:.0f} MiB" for name, share, memory in idle)
    )
    return [report]


def _finished(api):
    job = api.post("/v1/jobs", json=JOB).json()
    while job["status"] in ("queued", "running"):
        job = api.get(f"/v1/jobs/{job['id']}", params={"wait": 20}).json()
    assert job["status"] == "succeeded", job
    return job


def _bare_process():
    code = "import torch; from models.core.registry import Registry; Registry()['robust-ot'].method"
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
    return time.perf_counter() - started


def _idle(stack, seconds):
    """Share of a core and memory (PSS) of each part of the idle service."""
    parts = {"gateway": ("-m", "service"), "worker": ("-m", "workers")}
    pids = {name: stack.pids(*words) for name, words in parts.items()}
    known = {pid for found in pids.values() for pid in found}
    others = [process.pid for process in stack.processes() if process.pid not in known]
    pids["Valkey"] = [process.pid for process in psutil.process_iter(["name"]) if _is_valkey(process, stack.home)]
    pids["supervisor, Ray and replicas"] = [pid for pid in others if pid not in pids["Valkey"]]
    before = {name: sum(map(_cpu, found)) for name, found in pids.items()}
    time.sleep(seconds)
    return [
        (name, (sum(map(_cpu, found)) - before[name]) / seconds, sum(map(_memory, found)))
        for name, found in pids.items()
    ]


def _is_valkey(process, home):
    return "valkey" in process.info["name"] and any(str(home) in word for word in process.cmdline())


def _cpu(pid):
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


def _memory(pid):
    return psutil.Process(pid).memory_full_info().pss / (1 << 20)
