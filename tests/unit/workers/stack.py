"""The real queue for tests: an embedded Valkey, worker processes, the gateway's client. No mocks."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import redis

from models.core.datasets import DatasetStore
from models.core.registry import Registry
from models.core.store import BlobStore
from service.settings import Settings
from workers.client import JobsClient, JobSpec
from workers.connect import patient
from workers.environment import environment
from workers.kinds import validate
from workers.valkey import EmbeddedValkey

METHODS = Path(__file__).parent / "methods"
LEASE_S, INTERVAL_S = 3, 1
RECOVERY_S = 15.0


class Stack:
    def __init__(self, home: Path, **overrides):
        self.home = home
        self.valkey = EmbeddedValkey(home)
        settings = {
            "home": home,
            "redis_url": overrides.get("redis_url") or self.valkey.start(),
            "methods_path": str(METHODS),
            "job_lease_s": LEASE_S,
            "job_interval_s": INTERVAL_S,
            "torch_threads": 1,
            "drain_s": 2.0,
        }
        self.settings = Settings(**{**settings, **overrides})
        self.registry = Registry(METHODS)
        self.store = BlobStore(self.settings.store)
        self.datasets = DatasetStore(self.store, home / "cache")
        self.redis = self._look_inside()
        self.workers = []
        self._runner = asyncio.Runner()
        self.client = self._runner.run(self._connect())

    def _look_inside(self):
        if "+sentinel" in self.settings.redis_url:
            return patient(self.settings.redis_url, decode=True)
        return redis.Redis.from_url(self.settings.redis_url, decode_responses=True)

    async def _connect(self):
        return JobsClient(self.settings.redis_url, self.settings)

    def run(self, coroutine):
        return self._runner.run(coroutine)

    def start_worker(self, **overrides):
        settings = Settings(**{**self.settings.model_dump(exclude_unset=True), **overrides})
        with (self.home / f"worker-{len(self.workers)}.log").open("wb") as log:
            worker = subprocess.Popen(
                [sys.executable, "-m", "workers"], env=environment(settings), stdout=log, stderr=log
            )
        self.workers.append(worker)
        return worker

    def wait_for_workers(self, count, timeout=30):
        self.until(lambda: sum(self.run(self.client.stats()).workers.values()) >= count, timeout, "workers")

    def submit(self, kind, owner="", **fields):
        parameters = fields.pop("parameters", {})
        keys = {name: fields.pop(name) for name in ("idempotency_key", "request_id") if name in fields}
        spec = validate(self.registry, JobSpec(kind=kind, parameters=parameters, **fields))
        record, _ = self.run(self.client.submit(spec, owner, **keys))
        return record

    def get(self, job_id):
        return self.run(self.client.get(job_id))

    def wait(self, job_id, timeout=40.0):
        record = self.run(self.client.wait(job_id, timeout))
        assert record.final, f"{record}\n{self.logs()}"
        return record

    def until(self, condition, timeout, what):
        deadline = time.monotonic() + timeout
        while True:
            value = condition()
            if value:
                return value
            assert time.monotonic() < deadline, f"no {what} within {timeout} s\n{self.logs()}"
            time.sleep(0.05)

    def wait_for_trace(self, trace, word, count, timeout=30):
        return self.until(lambda: len(read_trace(trace, word)) >= count, timeout, f"{count} lines {word!r}")

    def vectors(self, owner="", n=120, seed=0):
        """Two overlapping classes as a stored data set."""
        rng = np.random.default_rng(seed)
        labels = np.arange(n) % 2
        x = (rng.standard_normal((n, 5)) + labels[:, None]).astype(np.float32)
        path = self.home / f"vectors-{n}-{seed}.npz"
        np.savez(path, x=x, y=labels)
        return self.datasets.add(owner, path, filename=path.name, name="vectors")[0]

    def logs(self):
        return "\n".join(f"--- {p.name}\n{p.read_text()[-4000:]}" for p in sorted(self.home.glob("worker-*.log")))

    def close(self):
        for worker in self.workers:
            if worker.poll() is None:
                worker.send_signal(signal.SIGCONT)
                worker.kill()
            worker.wait()
        self.run(self.client.close())
        self._runner.close()
        self.redis.close()
        self.valkey.stop()


def read_trace(trace, word):
    """The lines ``[word, pid, number]`` that jobs wrote to disk."""
    lines = Path(trace).read_text().splitlines() if Path(trace).exists() else []
    return [(int(pid), int(number)) for name, pid, number in (line.split() for line in lines) if name == word]


def gone(pid):
    """Whether the process has ended; a zombie has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def children(pid):
    path = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in path.read_text().split()] if path.exists() else []


def kill(process):
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
