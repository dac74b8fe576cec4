"""A Ray cluster of several nodes on this machine: one is killed under load, another one is added."""

import asyncio
import os
import secrets
import shutil
import signal
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest

from models.core.registry import Registry
from tests.contract.examples import example_item
from tests.e2e.gateways import Fleet

pytestmark = [pytest.mark.failover, pytest.mark.chaos, pytest.mark.stack, pytest.mark.timeout(300)]

MODEL, CLIENTS = "align-uniform", 12


@pytest.fixture(scope="module")
def cluster():
    """A head that runs no replicas, and two nodes with room for one each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        from ray.cluster_utils import Cluster

        folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # short: sockets below it must stay under 108 bytes
        patch.setenv("RAY_TMPDIR", str(folder))
        (folder / "ray").mkdir()
        previous = signal.getsignal(signal.SIGTERM)  # each node that is made here sets one of its own
        running = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
        for _ in range(2):
            running.add_node(num_cpus=1)
        try:
            yield running
        finally:
            running.shutdown()
            signal.signal(signal.SIGTERM, previous)
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def fleet(cluster):
    running = Fleet(backend="ray", ray_address=cluster.address, replicas=2, num_cpus=1)
    try:
        yield running
    finally:
        running.close()


def raylet_of(node):
    return node.all_processes["raylet"][0].process.pid


def replicas():
    """The pool's replicas by the raylet that started them, which has one each."""
    found = {}
    for process in psutil.process_iter():
        try:
            if "ServeReplica:models:pool" in " ".join(process.cmdline()):
                environment = process.environ()
                if environment.get("RAY_AUTH_TOKEN") == os.environ["RAY_AUTH_TOKEN"]:
                    found[process.ppid()] = process
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def kill_node(cluster, node):
    """``kill -9`` of the raylet and of everything that it started."""
    raylet = psutil.Process(raylet_of(node))
    for process in [raylet, *raylet.children(recursive=True)]:
        process.send_signal(signal.SIGKILL)
    cluster.remove_node(node, allow_graceful=False)


async def send(gateway, bodies, expected, stop, answers):
    """Several clients at once until ``stop``."""
    async with httpx.AsyncClient(base_url=gateway.url, headers=gateway.http.headers, timeout=70) as http:
        await asyncio.gather(*(ask(http, bodies, expected, stop, answers, seed) for seed in range(CLIENTS)))


async def ask(http, bodies, expected, stop, answers, seed):
    """One client: asks without a pause and notes when, how long it took and whether the answer is right."""
    rng = np.random.default_rng(seed)
    while not stop.is_set():
        which = int(rng.integers(len(bodies)))
        started = time.monotonic()
        answer = await http.post("/v1/embeddings", json=bodies[which])
        right = answer.status_code == 200 and np.allclose(
            answer.json()["data"][0]["embedding"], expected[which], atol=1e-5
        )
        answers.append((started, time.monotonic() - started, "right" if right else answer.text))


@pytest.fixture(scope="module")
def gateway(fleet):
    running = fleet.gateway()
    fleet.until(lambda: len(replicas()) == 2, "two replicas", 60)
    return running


@pytest.fixture(scope="module")
def asked(gateway):
    """Bodies of requests, and the embeddings that answer them."""
    spec = Registry()[MODEL].shipped().config.input
    bodies = [{"model": MODEL, "input": example_item(spec, seed)} for seed in range(8)]
    return bodies, [embedding(gateway.http.post("/v1/embeddings", json=body)) for body in bodies]


def embedding(answer):
    assert answer.status_code == 200, answer.text
    return answer.json()["data"][0]["embedding"]


def test_a_second_gateway_leaves_the_replicas_as_they_are(fleet, gateway, asked):
    before = {process.pid for process in replicas().values()}
    second = fleet.gateway()
    bodies, expected = asked
    for http in (gateway.http, second.http):
        assert np.allclose(embedding(http.post("/v1/embeddings", json=bodies[0])), expected[0], atol=1e-5)
    time.sleep(2)
    assert {process.pid for process in replicas().values()} == before
    second.kill()
    assert np.allclose(embedding(gateway.http.post("/v1/embeddings", json=bodies[1])), expected[1], atol=1e-5)


def test_a_node_that_is_killed_under_load_fails_no_request(cluster, fleet, gateway, asked, record_property):
    answers, stop = [], threading.Event()
    load = threading.Thread(target=lambda: asyncio.run(send(gateway, *asked, stop, answers)))
    load.start()
    try:
        time.sleep(3)
        killed = time.monotonic()
        kill_node(cluster, next(node for node in cluster.worker_nodes if raylet_of(node) in replicas()))
        time.sleep(10)
        added = time.monotonic()
        cluster.add_node(num_cpus=1)
        fleet.until(lambda: len(replicas()) == 2, "second replica", 60)
        back = time.monotonic()
        time.sleep(3)
    finally:
        stop.set()
        load.join()
    outcomes = Counter(outcome for _, _, outcome in answers)
    record_property("answers", len(answers))
    record_property("slowest_s", round(max(seconds for began, seconds, _ in answers if began > killed - 1), 2))
    record_property("replica_back_after_s", round(back - added, 1))
    assert outcomes.keys() == {"right"}, f"{outcomes}\n{fleet.logs()}"
    assert sum(began > back for began, *_ in answers) > CLIENTS, "it answers after the new node came"
