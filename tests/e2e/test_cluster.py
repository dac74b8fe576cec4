"""A gateway that joins a Ray cluster, with a method in a dedicated deployment that starts from zero."""

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest

from models.core.registry import Registry
from tests.contract.examples import example_item
from tests.e2e.stack import Stack, free_port

pytestmark = [pytest.mark.stack, pytest.mark.timeout(180)]

MODEL = "align-uniform"


@pytest.fixture(scope="module")
def module_monkeypatch():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


@pytest.fixture(scope="module")
def cluster(module_monkeypatch):
    """Address of a cluster of one node; its processes and its folder go with it."""
    module_monkeypatch.setenv("RAY_AUTH_MODE", "token")
    module_monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
    module_monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    folder = Path(tempfile.mkdtemp(prefix="ray-"))  # short: Ray's sockets below it must stay under 108 bytes
    port = free_port()
    head = subprocess.Popen(
        [
            str(Path(sys.executable).with_name("ray")),
            *("start", "--head", "--block", f"--port={port}", f"--temp-dir={folder}"),
            *("--num-cpus=2", f"--object-store-memory={200 << 20}", "--include-dashboard=false"),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield f"127.0.0.1:{port}"
    finally:
        family = psutil.Process(head.pid).children(recursive=True)
        os.killpg(head.pid, signal.SIGKILL)
        head.wait()
        for process in family:
            if process.is_running():
                process.kill()
        _, left = psutil.wait_procs(family, timeout=10)
        shutil.rmtree(folder, ignore_errors=True)
        assert left == []


@pytest.fixture(scope="module")
def joined(cluster, tmp_path_factory):
    placement = f'{{"{MODEL}": "dedicated"}}'
    running = Stack(tmp_path_factory.mktemp("joined"), ray_address=cluster, placement=placement).start()
    try:
        yield running.wait_ready()
    finally:
        running.stop()
        assert running.gone(10) == [], running.story()


def replicas(name):
    """Environments of the replicas of one deployment of this cluster, by its token."""
    found = []
    for process in psutil.process_iter():
        try:
            if f"ServeReplica:models:{name}" in " ".join(process.cmdline()):
                environment = process.environ()
                if environment.get("RAY_AUTH_TOKEN") == os.environ["RAY_AUTH_TOKEN"]:
                    found.append(environment)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def state(client):
    return next(card["state"] for card in client.get("/v1/models").json()["data"] if card["id"] == f"{MODEL}@1")


def test_a_dedicated_method_starts_from_zero_within_the_deadline(joined):
    body = {"model": MODEL, "input": example_item(Registry()[MODEL].shipped().config.input)}
    with joined.client() as client:
        assert state(client) == "cold"
        assert replicas(MODEL) == [], "nobody has asked for it"
        cold = client.post("/v1/embeddings", json=body, headers={"Prefer": "wait=50"})
        assert cold.status_code == 200, cold.text
        assert state(client) == "ready"
        (own,) = replicas(MODEL)
        assert own["RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD"] == "0", "the gateway's flags reach the cluster"
        started = time.monotonic()
        warm = client.post("/v1/embeddings", json=body)
        assert warm.json() == cold.json()
        assert time.monotonic() - started < 1
        metrics = client.get("/metrics").text
        assert f'deepnight_model_state{{model="{MODEL}@1",state="ready"}} 1.0' in metrics
        assert f'deepnight_model_load_seconds_count{{model="{MODEL}@1"}} 1.0' in metrics


def test_a_method_of_the_pool_answers_beside_it(joined):
    body = {"model": "robust-ot", "a": {"points": [[0, 0], [1, 0]]}, "b": {"points": [[0, 1], [1, 1]]}}
    with joined.client() as client:
        answer = client.post("/v1/distances", json=body)
    assert answer.status_code == 200, answer.text
    assert answer.json()["distance"] == pytest.approx(1.0)
