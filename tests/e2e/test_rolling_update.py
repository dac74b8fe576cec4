"""The Serve configuration of ``k8s/base`` on a real cluster of one node, changed while requests come."""

import asyncio
import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import psutil
import pytest
import yaml

from models.core.registry import Registry
from service.deployments import FLAGS
from tests.contract.examples import example_item
from tests.e2e.stack import ROOT, free_port

pytestmark = [pytest.mark.stack, pytest.mark.timeout(240)]

MODEL, KEY, CLIENTS = "align-uniform", "dn_rolling-update", 8
MANIFEST = ROOT / "k8s" / "base" / "rayservice.yaml"


class Cluster:
    """A Ray cluster of one node with its dashboard, which takes configurations as KubeRay's operator sends them."""

    def __init__(self, home):
        self.home, self.token = home, secrets.token_hex(32)
        self.dashboard, self.port = (f"http://127.0.0.1:{free_port()}", free_port())
        self.folder = Path(tempfile.mkdtemp(prefix="ray-"))  # short: Ray's sockets below it must stay under 108 bytes
        command = [
            str(Path(sys.executable).with_name("ray")),
            *("start", "--head", "--block", f"--port={free_port()}", f"--temp-dir={self.folder}", "--num-cpus=4"),
            *(f"--object-store-memory={200 << 20}", "--include-dashboard=true"),
            f"--dashboard-port={self.dashboard.rpartition(':')[2]}",
        ]
        self.head = subprocess.Popen(
            command,
            env=self._environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def _environment(self):
        ports = ("RAY_SERVE_HAPROXY_METRICS_PORT", "RAY_SERVE_HAPROXY_STATS_PORT")
        return {
            **os.environ,
            **FLAGS,
            **{name: str(free_port()) for name in ports},
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": self.token,
            "RAY_SERVE_ENABLE_HA_PROXY": "1",
            "DEEPNIGHT_HOME": str(self.home),
            "DEEPNIGHT_API_KEYS": KEY,
            "PYTHONPATH": str(ROOT),
        }

    def deploy(self, deadline):
        """Send the manifest's configuration with another port and a setting that each replica gets."""
        service = next(part for part in yaml.safe_load_all(MANIFEST.read_text()) if part["kind"] == "RayService")
        config = yaml.safe_load(service["spec"]["serveConfigV2"])
        config["http_options"] |= {"host": "127.0.0.1", "port": self.port}
        for application in config["applications"]:
            application["runtime_env"] = {"env_vars": {"DEEPNIGHT_DEADLINE_S": deadline}}
        self._serve("PUT", json=config)

    def states(self):
        return {application["status"] for application in self._serve("GET").json()["applications"].values()}

    def _serve(self, method, **content):
        url, headers = f"{self.dashboard}/api/serve/applications/", {"Authorization": f"Bearer {self.token}"}
        return httpx.request(method, url, headers=headers, timeout=60, **content).raise_for_status()

    def deadlines(self):
        """The setting as each replica's process has it, by the name of its deployment."""
        found = {}
        for process in psutil.Process(self.head.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                name = " ".join(process.cmdline())
                if "ServeReplica:" in name:
                    deployment = name.split("ServeReplica:")[1].split()[0]
                    found.setdefault(deployment, set()).add(process.environ().get("DEEPNIGHT_DEADLINE_S"))
        return found

    def stop(self):
        family = psutil.Process(self.head.pid).children(recursive=True)
        os.killpg(self.head.pid, signal.SIGKILL)
        self.head.wait()
        for process in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(family, timeout=10)
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture
def cluster(tmp_path):
    running = Cluster(tmp_path)
    try:
        yield running
    finally:
        running.stop()


def until(holds, seconds, what):
    end = time.monotonic() + seconds
    while True:
        with contextlib.suppress(httpx.HTTPError):
            if holds():
                return
        assert time.monotonic() < end, what
        time.sleep(0.5)


async def ask(http, body, expected, stop, counts):
    while not stop.is_set():
        try:
            answer = await http.post("/v1/embeddings", json=body)
        except httpx.HTTPError as error:
            counts["failed"].append(repr(error))
            continue
        if answer.status_code != 200:
            counts["failed"].append(answer.text)
        elif answer.json()["data"][0]["embedding"] != pytest.approx(expected, abs=1e-5):
            counts["failed"].append("another embedding")
        else:
            counts["right"] += 1
        await asyncio.sleep(0.02)


def test_no_request_fails_while_gateway_and_models_are_replaced(cluster):
    body = {"model": MODEL, "input": example_item(Registry()[MODEL].shipped().config.input)}
    client = {"base_url": f"http://127.0.0.1:{cluster.port}", "headers": {"Authorization": f"Bearer {KEY}"}}

    def embedding():
        return httpx.Client(**client, timeout=60).post("/v1/embeddings", json=body)

    def replaced():
        return cluster.states() == {"RUNNING"} and set(map(frozenset, cluster.deadlines().values())) == {
            frozenset({"59"})
        }

    def deployed():
        cluster.deploy("60")
        return True

    until(deployed, 60, "no dashboard")
    until(lambda: embedding().status_code == 200, 90, "no answer")
    expected = embedding().json()["data"][0]["embedding"]
    assert all(values == {"60"} for values in cluster.deadlines().values())

    async def run():
        counts, stop = {"right": 0, "failed": []}, asyncio.Event()
        async with contextlib.AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(httpx.AsyncClient(**client, timeout=70)) for _ in range(CLIENTS)]
            tasks = [asyncio.create_task(ask(http, body, expected, stop, counts)) for http in clients]
            await asyncio.sleep(1)
            await asyncio.to_thread(cluster.deploy, "59")
            await asyncio.to_thread(until, replaced, 120, "not replaced")
            await asyncio.sleep(2)
            stop.set()
            await asyncio.gather(*tasks)
        return counts

    counts = asyncio.run(run())
    assert counts["failed"] == []
    assert counts["right"] > 100
