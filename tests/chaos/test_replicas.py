"""Replicas that are killed and versions that change under load: every request is answered, and answered right."""

import asyncio
import os
import signal
import time

import httpx
import numpy as np
import psutil
import pytest

from models.core.checkpoint import Checkpoint
from models.core.registry import Registry
from models.core.store import BlobStore
from models.core.versions import Versions
from tests.benchmarks.bench_versions import under_load
from tests.contract.examples import example_item
from tests.e2e.stack import Stack

pytestmark = [pytest.mark.chaos, pytest.mark.stack, pytest.mark.timeout(240)]

MODEL, CLIENTS = "align-uniform", 12


@pytest.fixture(scope="module")
def instance(tmp_path_factory):
    running = Stack(tmp_path_factory.mktemp("replicas"), replicas=2).start()
    try:
        yield running.wait_ready()
    finally:
        running.stop()
        assert running.gone(10) == []


def replicas(instance):
    found = []
    for process in instance.processes():
        try:
            if any("ServeReplica:models:pool" in word for word in process.cmdline()):
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


async def wait_for_replicas(instance, count):
    until = time.monotonic() + 60
    while len(replicas(instance)) < count:
        assert time.monotonic() < until, instance.story()
        await asyncio.sleep(0.25)


async def load(http, bodies, expected, stop, counts):
    """One client: asks without a pause and compares each answer."""
    rng = np.random.default_rng(id(http) % 1000)
    while not stop.is_set():
        which = int(rng.integers(len(bodies)))
        answer = await http.post("/v1/embeddings", json=bodies[which])
        if answer.status_code != 200:
            counts["failed"].append((answer.status_code, answer.text))
        elif not np.allclose(answer.json()["data"][0]["embedding"], expected[which], atol=1e-5):
            counts["wrong"] += 1
        else:
            counts["right"] += 1


def test_no_request_fails_when_replicas_are_killed(instance):
    spec = Registry()[MODEL].shipped().config.input
    bodies = [{"model": MODEL, "input": example_item(spec, seed)} for seed in range(8)]

    async def run():
        counts = {"right": 0, "wrong": 0, "failed": []}
        async with httpx.AsyncClient(base_url=instance.base_url, timeout=70) as http:
            await wait_for_replicas(instance, 2)
            expected = [
                (await http.post("/v1/embeddings", json=body)).json()["data"][0]["embedding"] for body in bodies
            ]
            stop = asyncio.Event()
            clients = [asyncio.create_task(load(http, bodies, expected, stop, counts)) for _ in range(CLIENTS)]
            for victims in (1, 1, 2):  # one of two, the other one of two, then both at once
                await asyncio.sleep(1.5)
                await wait_for_replicas(instance, 2)
                for process in replicas(instance)[:victims]:
                    os.kill(process.pid, signal.SIGKILL)
            await wait_for_replicas(instance, 2)
            before, until = counts["right"], time.monotonic() + 60
            while counts["right"] < before + CLIENTS:
                assert time.monotonic() < until, "nothing is answered after the replicas came back"
                await asyncio.sleep(0.1)
            stop.set()
            await asyncio.gather(*clients)
        return counts

    counts = asyncio.run(run())
    assert counts["failed"] == []
    assert counts["wrong"] == 0
    assert counts["right"] > 100


def test_no_request_fails_while_the_default_changes(instance):
    registry = Registry()
    shipped = registry[MODEL].shipped()
    other = Checkpoint.write(
        instance.home / "other",
        shipped.config.model_copy(update={"version": "other"}),
        {name: tensor * 0.5 for name, tensor in shipped.tensors().items()},
    )
    store = BlobStore(str(instance.home / "store"))
    Versions(registry, store, instance.home / "cache").publish(MODEL, "other", other.folder, owner="me")
    answers = asyncio.run(under_load(instance.base_url, ["other", "1"] * 10, pause=0.1))
    assert answers.failed == 0
    assert set(answers.models) == {f"{MODEL}@1", f"{MODEL}@other"}
    assert min(answers.models.values()) > 20
