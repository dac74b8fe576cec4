"""Gateways and workers as separate processes, each with a folder of its own, on one Redis and one store."""

import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx

from tests.e2e.stack import ROOT, environment, free_port
from workers.valkey import EmbeddedValkey

KEY = "dn_several-gateways"
METHODS = ROOT / "tests" / "unit" / "workers" / "methods"


class Fleet:
    """Processes that share nothing but Redis and the store, as on several machines.

    Attributes:
        folder: a short one, as addresses of Unix sockets are.
        redis_url: of the queue; an embedded Valkey's where none was given.
        store_url: of the blob store; a folder's where none was given.
    """

    def __init__(self, redis_url=None, store_url=None, **settings):
        self.folder = Path(tempfile.mkdtemp(prefix="fleet-", dir="/tmp"))
        self.valkey = None if redis_url else EmbeddedValkey(self.folder)
        self.redis_url = redis_url or self.valkey.start()
        self.store_url = store_url or str(self.folder / "store")
        self.settings = {"backend": "in-process", "api_keys": KEY, "methods_path": METHODS, **settings}
        self.processes = []

    def start(self, module, **settings):
        """Start ``python -m MODULE`` in a folder of its own; the process and its port."""
        number, port = len(self.processes), free_port()
        home = self.folder / f"{module}-{number}"
        own = {"redis_url": self.redis_url, "store_url": self.store_url, **self.settings, **settings}
        with (self.folder / f"{module}-{number}.log").open("wb") as log:
            variables = environment(home, port, **own)
            process = subprocess.Popen([sys.executable, "-m", module], cwd=ROOT, env=variables, stdout=log, stderr=log)
        self.processes.append(process)
        return process, port

    def gateway(self, **settings):
        """Start a gateway and wait until it takes requests."""
        process, port = self.start("service", **settings)
        gateway = Gateway(process, f"http://127.0.0.1:{port}")
        self.until(gateway.ready, f"the gateway at {port}")
        return gateway

    def worker(self, **settings):
        """Start a worker."""
        return self.start("workers", **settings)[0]

    def until(self, condition, what, seconds=40):
        """Wait for a true value and return it."""
        end = time.monotonic() + seconds
        while not (value := condition()):
            assert time.monotonic() < end, f"no {what} within {seconds} s\n{self.logs()}"
            time.sleep(0.1)
        return value

    def logs(self, whole=False):
        """All logs, or their ends, for a failed test."""
        paths = sorted(self.folder.glob("*.log"))
        last = 0 if whole else -3000
        return "\n".join(f"--- {path.name}\n{path.read_text(errors='replace')[last:]}" for path in paths)

    def close(self):
        for process in self.processes:
            process.kill()
            process.wait()
        if self.valkey is not None:
            self.valkey.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


class Gateway:
    """One gateway: its process, its address and a client with the key of the environment."""

    def __init__(self, process, url):
        self.process = process
        self.url = url
        self.http = self.client(KEY)

    def client(self, key):
        return httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {key}"}, timeout=60)

    def ready(self):
        try:
            return self.http.get("/readyz").status_code == 200
        except httpx.HTTPError:
            return False

    def kill(self):
        self.process.kill()
        self.process.wait()
