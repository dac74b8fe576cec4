"""How long a job waits for its process, against starting that process by hand, and what the idle queue costs."""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import redis

from tests.benchmarks.load import measure
from tests.benchmarks.report import Report
from tests.e2e.stack import ROOT, Stack
from workers.stats import QUEUE
from workers.valkey import EmbeddedValkey

CLIENTS = (1, 8, 32)
SIDE = {"points": [[0.0, 0.0], [1.0, 0.0]]}
JOB = {"kind": "predict", "model": "robust-ot", "parameters": {"request": {"a": SIDE, "b": SIDE}}}


def run(*, quick):
    count = 2 if quick else 10
    with tempfile.TemporaryDirectory() as home:
        stack = Stack(Path(home), concurrent_jobs=1_000_000).start()
        try:
            stack.wait_ready()
            with stack.client() as api, redis.Redis.from_url(EmbeddedValkey(stack.home).url) as valkey:
                counts = [_counts(valkey)]
                idle = _idle(stack, 2 if quick else 20)
                counts.append(_counts(valkey))
                jobs = [_finished(api) for _ in range(count)]
                counts.append(_counts(valkey))
                accepted = [measure(f"{stack.base_url}/v1/jobs", [JOB], c, 2 if quick else 5) for c in CLIENTS]
                waiting = _counts(valkey)
                kept = (waiting["memory"] - counts[-1]["memory"]) / waiting["jobs"]
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
    return [report, _costs(accepted, _a_job(count, *counts), kept)]


def _counts(valkey):
    """Changes, bytes of the append-only file, bytes of memory, jobs that wait, and when that was."""
    persistence = valkey.info("persistence")
    return {
        "changes": persistence["rdb_changes_since_last_save"],
        "bytes": persistence["aof_current_size"],
        "memory": valkey.info("memory")["used_memory"],
        "jobs": valkey.llen(f"rq:queue:{QUEUE}"),
        "time": time.perf_counter(),
    }


def _a_job(count, before, idle, after):
    """What each of ``count`` jobs wrote, without what the idle service writes in that time."""
    pace = (after["time"] - idle["time"]) / (idle["time"] - before["time"])
    return {
        what: (after[what] - idle[what] - pace * (idle[what] - before[what])) / count for what in ("changes", "bytes")
    }


def _costs(accepted, written, kept):
    report = Report("What a job costs the queue", ["what", "value"])
    for clients, load in zip(CLIENTS, accepted, strict=True):
        report.add(f"jobs accepted a second, {clients} clients", f"{load.good:.0f} (p99 {load.p99:.0f} ms)")
    report.add("changes of keys, from its submission to its end", f"{written['changes']:.0f}")
    report.add("bytes of the append-only file, likewise", f"{written['bytes']:.0f}")
    report.add("memory of Valkey for a job that waits", f"{kept / 1024:.1f} KiB")
    report.notes.append(f"{sum(load.errors for load in accepted)} failed submissions; each is on disk before its 202")
    return report


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
