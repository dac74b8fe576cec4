"""A Ray cluster of several nodes on this machine: one is killed under load, another one is added."""

import asyncio
import os
import secrets
import shutil
import signal
import tempfile
import time
from collections import Counter

import httpx
import numpy as np
import psutil
import pytest

from models.core.registry import Registry
from tests.contract.examples import example_item
from tests.e2e.gateways import Fleet

pytestmark = [pytest.mark.chaos, pytest.mark.stack, pytest.mark.timeout(300)]

MODEL, CLIENTS = "align-uniform", 12


@pytest.fixture(scope="module")
def cluster():
    """A head that runs no replicas, and two nodes with room for one each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "token")
        patch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        from ray.cluster_utils import Cluster

        folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # short: sockets below it must stay under 108 bytes
        running = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 0, "temp_dir": folder, "include_dashboard": False},
        )
        for _ in range(2):
            running.add_node(num_cpus=1)
        try:
            yield running
        finally:
            running.shutdown()
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


async def ask(http, bodies, expected, stop, answers):
    """One client: asks without a pause and compares each answer."""
    rng = np.random.default_rng(len(answers))
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
    bodies, expected = asked
    answers = []
    killed = added = 0.0

    async def run():
        nonlocal killed, added
        stop = asyncio.Event()
        async with httpx.AsyncClient(base_url=gateway.url, headers=gateway.http.headers, timeout=70) as http:
            clients = [asyncio.create_task(ask(http, bodies, expected, stop, answers)) for _ in range(CLIENTS)]
            await asyncio.sleep(3)
            victim = next(node for node in cluster.worker_nodes if raylet_of(node) in replicas())
            killed = time.monotonic()
            await asyncio.to_thread(kill_node, cluster, victim)
            await asyncio.sleep(10)
            added = time.monotonic()
            await asyncio.to_thread(cluster.add_node, num_cpus=1)
            await asyncio.to_thread(fleet.until, lambda: len(replicas()) == 2, "two replicas", 60)
            back = time.monotonic()
            await asyncio.sleep(3)
            stop.set()
            await asyncio.gather(*clients)
        return back

    back = asyncio.run(run())
    assert len(replicas()) == 2, fleet.logs()
    counts = Counter(outcome for _, _, outcome in answers)
    slowest = max(seconds for started, seconds, _ in answers if started > killed - 1)
    after = sum(1 for started, *_ in answers if started > back)
    record_property("answers", len(answers))
    record_property("slowest_s", round(slowest, 2))
    record_property("replica_back_after_s", round(back - added, 1))
    print(counts, "slowest", round(slowest, 2), "back", round(back - added, 1), "after", after)
    assert counts.keys() == {"right"}, f"{counts}\n{fleet.logs()}"
    assert after > CLIENTS, "answered after the new node came"
