"""From a training's success to the first answer of its version, and answers while the default changes under load."""

import asyncio
import itertools
import statistics
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import numpy as np

from models.core.registry import Registry
from tests.benchmarks.report import Report
from tests.contract.examples import example_item
from tests.e2e.stack import Stack

MODEL = "align-uniform"
DATA = Path(__file__).parents[1] / "data" / "fashion-mnist-600.npz"
CLIENTS = 8


@dataclass
class Answers:
    """What clients saw; latencies in milliseconds."""

    failed: int = 0
    models: Counter = field(default_factory=Counter)
    latencies: list[float] = field(default_factory=list)

    def percentile(self, share):
        return float(np.percentile(self.latencies, share))


def run(*, quick):
    trainings, changes = (1, 4) if quick else (3, 20)
    with tempfile.TemporaryDirectory() as home:
        stack = Stack(Path(home)).start()
        try:
            stack.wait_ready()
            with stack.client() as api:
                dataset = upload(api)
                names = [f"bench-{number}" for number in range(trainings)]
                waits = [first_answer(api, dataset, name) for name in names]
            steady = asyncio.run(under_load(stack.base_url, ["1"] * changes))
            turns = itertools.islice(itertools.cycle([*names, "1"]), changes)
            changing = asyncio.run(under_load(stack.base_url, list(turns)))
        finally:
            stack.stop()
    return [_report(waits, steady, changing, changes)]


def upload(api):
    """The data set's id."""
    with DATA.open("rb") as file:
        return api.post("/v1/datasets", files={"file": (DATA.name, file)}).json()["id"]


def first_answer(api, dataset, version):
    """Train ``version``; seconds from its success, by the server's clock, to its first answer."""
    parameters = {"epochs": 1, "batch_size": 64, "version": version}
    body = {"kind": "train", "model": MODEL, "dataset": dataset, "parameters": parameters}
    job = api.post("/v1/jobs", json=body).json()
    while job["status"] in ("queued", "running"):
        job = api.get(f"/v1/jobs/{job['id']}", params={"wait": 20}).json()
    assert job["status"] == "succeeded", job
    _ask(api, f"{MODEL}@{version}")
    return time.time() - job["finished_at"]


def _ask(api, model):
    answer = api.post("/v1/embeddings", json=_body(model))
    assert answer.status_code == 200, answer.text


def _body(model):
    return {"model": model, "input": example_item(Registry()[MODEL].shipped().config.input)}


async def under_load(base_url, defaults, pause=0.5):
    """Answers to clients of the bare slug while each of ``defaults`` in turn becomes what it means."""
    answers, done = Answers(), asyncio.Event()
    limits = httpx.Limits(max_connections=CLIENTS + 1)
    async with httpx.AsyncClient(base_url=base_url, timeout=30, limits=limits) as api:
        clients = [asyncio.create_task(_ask_on(api, done, answers)) for _ in range(CLIENTS)]
        for version in defaults:
            await asyncio.sleep(pause)
            changed = await api.put(f"/v1/models/{MODEL}/default", json={"version": version})
            assert changed.status_code == 200, changed.text
            seen = answers.models[f"{MODEL}@{version}"]
            until = time.monotonic() + 10
            while answers.models[f"{MODEL}@{version}"] == seen:
                assert time.monotonic() < until, f"{version} never answered"
                await asyncio.sleep(0.01)
        done.set()
        await asyncio.gather(*clients)
    return answers


async def _ask_on(api, done, answers):
    body = _body(MODEL)
    while not done.is_set():
        started = time.perf_counter()
        try:
            answer = await api.post("/v1/embeddings", json=body)
        except httpx.TransportError:
            answers.failed += 1
            continue
        answers.latencies.append((time.perf_counter() - started) * 1e3)
        if answer.status_code == 200:
            answers.models[answer.json()["model"]] += 1
        else:
            answers.failed += 1


def _report(waits, steady, changing, changes):
    report = Report("A version's first answer, and changes of the default under load", ["what", "median", "most"])
    report.add(
        "from a training's success to its version's first answer",
        f"{statistics.median(waits):.2f} s",
        f"{max(waits):.2f} s",
    )
    for what, answers in (("the default stays", steady), ("the default changes", changing)):
        report.add(f"an answer, {what}", f"{answers.percentile(50):.1f} ms", f"{max(answers.latencies):.0f} ms")
    served = ", ".join(f"{name} {count}" for name, count in sorted(changing.models.items()))
    tails = [
        f"{answers.percentile(99):.0f} ms while it {what}"
        for what, answers in (("stays", steady), ("changes", changing))
    ]
    report.notes += [
        f"{changing.failed} of {len(changing.latencies)} requests of {CLIENTS} clients failed during {changes} changes",
        f"answered by {served}",
        f"99th percentile: {tails[0]}, {tails[1]}",
    ]
    return report
