"""Inference on the in-process backend with a small method whose speed and failures the test commands."""

import asyncio
import time

import numpy as np
import pytest
import torch

from models.core.checkpoint import WEIGHTS, Checkpoint, CheckpointConfig
from models.core.inputs import VectorSpec
from service.inference import (
    DeadlineError,
    Inference,
    InputFailedError,
    ModelFailedError,
    NotReadyError,
    OverloadedError,
)
from service.metrics import Metrics
from service.services import make_services
from service.settings import Settings

CARD = """
slug = "obedient"
title = "Obedient"
capability = "embed"
description = "Does what its input says."
use_when = "a test needs it"
limits = "none"
licence = "Apache-2.0"
input = "a vector of two numbers"
output = "the vector doubled"
max_batch = 8
[paper]
title = "None"
authors = "Nobody"
venue = "Nowhere"
url = "https://example.org"
"""
SCHEMA = """
from pydantic import BaseModel, Field
class Params(BaseModel, extra="forbid"):
    seconds: float = Field(default=0.0, description="how long a batch takes")
"""
METHOD = """
import time
import numpy as np
from models.core.method import Method, MethodError

class Obedient(Method):
    batches = []

    @classmethod
    def load(cls, checkpoint, device):
        checkpoint.tensors(device)
        return cls()

    def predict(self, inputs, params):
        self.batches.append(len(inputs))
        time.sleep(params.seconds)
        if (inputs[:, 0] == -1).any():
            raise MethodError("minus one is refused")
        if (inputs[:, 0] == -2).any():
            raise ZeroDivisionError("a defect")
        return np.asarray(inputs) * 2

    @classmethod
    def evaluate(cls, checkpoint, run, dataset=None):
        raise AssertionError
"""


@pytest.fixture(scope="module")
def methods(tmp_path_factory):
    root = tmp_path_factory.mktemp("methods")
    folder = root / "obedient"
    folder.mkdir()
    for name, text in (("card.toml", CARD), ("schema.py", SCHEMA), ("method.py", METHOD)):
        (folder / name).write_text(text)
    config = CheckpointConfig(method="obedient", input=VectorSpec(size=2))
    Checkpoint.write(folder / "weights", config, {"unused": torch.zeros(1)})
    return root


class Harness:
    def __init__(self, services):
        self.services = services
        self.inference = services.inference
        self.version = services.versions.resolve("obedient")

    async def ask(self, *rows, wait=10.0, version=None, **params):
        inputs = [np.array([row, 1], dtype=np.float32) for row in rows]
        parsed = self.version.entry.params(**params) if params else self.version.entry.default_params
        deadline = time.monotonic() + wait
        return await self.inference.predict(version or self.version, inputs, parsed, deadline=deadline)


def run(methods, home, scenario, **settings):
    async def play():
        configured = Settings(home=home, backend="in-process", methods_path=str(methods), **settings)
        harness = Harness(make_services(configured, Metrics()))
        await harness.inference.start()
        try:
            return await scenario(harness)
        finally:
            await harness.inference.stop()

    return asyncio.run(play())


def test_outputs_come_in_order_and_the_state_becomes_ready(methods, tmp_path):
    async def scenario(h):
        assert h.inference.states() == {}
        assert [out.tolist() for out in await h.ask(*range(20))] == [[2 * i, 2] for i in range(20)]
        assert h.inference.states() == {"obedient@1": "ready"}

    run(methods, tmp_path, scenario)


def test_bad_items_fail_alone(methods, tmp_path):
    async def scenario(h):
        good, refused, broken = await asyncio.gather(
            h.ask(1, 2, 3), h.ask(4, -1, 5, -1), h.ask(-2), return_exceptions=True
        )
        assert [out[0] for out in good] == [2, 4, 6]
        assert isinstance(refused, InputFailedError)
        assert refused.errors == [(1, "minus one is refused"), (3, "minus one is refused")]
        assert isinstance(broken, ModelFailedError)
        assert "a defect" not in str(broken), "internals are for the logs"
        assert h.inference.states() == {"obedient@1": "ready"}

    run(methods, tmp_path, scenario)


def test_overload_is_refused_at_once_and_the_rest_is_answered(methods, tmp_path):
    async def scenario(h):
        await h.ask(0)
        asked = [asyncio.ensure_future(h.ask(i, seconds=0.05)) for i in range(100)]
        started = time.monotonic()
        done = await asyncio.gather(*asked, return_exceptions=True)
        refused = [answer for answer in done if isinstance(answer, OverloadedError)]
        assert len(refused) == 100 - 2 - 16
        assert all(error.retry_after >= 1 for error in refused)
        assert time.monotonic() - started < 5
        assert [a[0][0] for a in done if not isinstance(a, Exception)] == [2 * i for i in range(18)]

    run(methods, tmp_path, scenario, queue_limit=16)


def test_the_deadline_is_kept(methods, tmp_path):
    async def scenario(h):
        await h.ask(0)
        started = time.monotonic()
        with pytest.raises(DeadlineError):
            await h.ask(1, seconds=0.5, wait=0.1)
        assert time.monotonic() - started < 0.4
        assert (await h.ask(2))[0][0] == 4

    run(methods, tmp_path, scenario)


def test_a_burst_on_a_cold_model_loads_it_once(methods, tmp_path):
    async def scenario(h):
        answers = await asyncio.gather(*(h.ask(i) for i in range(30)))
        assert [answer[0][0] for answer in answers] == [2 * i for i in range(30)]
        metrics = h.services.metrics
        loads = metrics.registry.get_sample_value("deepnight_model_load_seconds_count", {"model": "obedient@1"})
        assert loads == 1
        ok = {"model": "obedient@1", "outcome": "ok"}
        assert metrics.registry.get_sample_value("deepnight_inference_requests_total", ok) == 30
        batches = metrics.registry.get_sample_value("deepnight_inference_batch_size_count", {"model": "obedient@1"})
        assert batches < 30, "waiting inputs share calls"

    run(methods, tmp_path, scenario)


def test_a_damaged_version_is_failed_and_harms_no_other(methods, tmp_path):
    async def scenario(h):
        versions, source = h.services.versions, methods / "obedient" / "weights"
        damaged = versions.publish("obedient", "damaged", source, owner="me")
        with (versions.checkpoint(damaged).folder / WEIGHTS).open("ab") as file:
            file.write(b"x")
        with pytest.raises(ModelFailedError, match="SHA-256"):
            await h.ask(1, version=damaged)
        assert (await h.ask(1))[0][0] == 2
        assert h.inference.states() == {"obedient@1": "ready", "obedient@damaged": "failed"}

    run(methods, tmp_path, scenario)


def test_versions_beyond_the_capacity_take_turns(methods, tmp_path):
    async def scenario(h):
        source = methods / "obedient" / "weights"
        published = [h.services.versions.publish("obedient", f"v{i}", source, owner="me") for i in range(4)]
        for _ in range(2):
            for version in published:
                assert (await h.ask(3, version=version))[0][0] == 6
        assert len(h.inference._backend._host._loaded) == 2

    run(methods, tmp_path, scenario, models_per_replica=2)


def test_before_the_start_it_is_not_ready(methods, tmp_path):
    async def scenario():
        settings = Settings(home=tmp_path, backend="in-process", methods_path=str(methods))
        services = make_services(settings, Metrics())
        assert isinstance(services.inference, Inference)
        assert not services.inference.ready()
        with pytest.raises(NotReadyError):
            await Harness(services).ask(1, wait=0.1)

    asyncio.run(scenario())
