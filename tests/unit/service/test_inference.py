"""Inference on the in-process backend with a small method whose speed and failures the test commands."""

import asyncio
import io
import time

import numpy as np
import pytest
import torch

from models.core.checkpoint import WEIGHTS, Checkpoint, CheckpointConfig
from models.core.inputs import VectorSpec
from models.core.outputs import Side, Sides
from service import logs
from service.calls import Call, payload_bytes
from service.host import ModelHost
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
        tensors = checkpoint.tensors(device)
        if "broken" in tensors:
            raise OSError("/a/path/of/ours")
        method = cls()
        method.factor = tensors["factor"].item()
        return method

    def predict(self, inputs, params):
        self.batches.append(len(inputs))
        time.sleep(params.seconds)
        if (inputs[:, 0] == -1).any():
            raise MethodError("minus one is refused")
        if (inputs[:, 0] == -2).any():
            raise ZeroDivisionError("a defect")
        return np.asarray(inputs) * np.float32(self.factor)

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
    Checkpoint.write(folder / "weights", config, {"factor": torch.tensor(2.0)})
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


@pytest.fixture(scope="module", autouse=True)
def configured_logs():
    logs.configure(Settings(log_format="json"), io.StringIO())
    yield
    logs.configure(Settings())


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
        assert len(refused) == 100 - 2 * 8 - 16, "two full calls leave, the queue is full"
        assert all(error.retry_after >= 1 for error in refused)
        assert time.monotonic() - started < 5
        assert [a[0][0] for a in done if not isinstance(a, Exception)] == [2 * i for i in range(2 * 8 + 16)]

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


def test_a_call_is_brief_once_as_many_rows_with_its_parameters_were(methods, tmp_path):
    host = ModelHost(Settings(home=tmp_path, methods_path=str(methods)))

    def call(rows, params=b"{}", revision=0.0):
        return Call("obedient@1", revision, params, np.zeros((rows, 2), np.float32))

    assert not host.brief(call(1)), "it is not loaded"
    host.call(call(1))
    host.call(call(4))
    assert host.brief(call(3))
    assert host.brief(call(4))
    assert not host.brief(call(5)), "so many were never seen"
    assert not host.brief(call(1, b'{"seconds":0.02}')), "other parameters"
    assert not host.brief(call(1, revision=time.time() + 1)), "an older version of that name"
    host.call(call(1, b'{"seconds":0.02}'))
    assert not host.brief(call(1, b'{"seconds":0.02}'))


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


def written(folder, **tensors):
    config = CheckpointConfig(method="obedient", input=VectorSpec(size=2))
    Checkpoint.write(folder, config, {name: torch.tensor(value) for name, value in tensors.items()})
    return folder


def test_a_version_that_fails_to_load_is_failed_and_says_nothing_of_ours(methods, tmp_path):
    async def scenario(h):
        broken = h.services.versions.publish("obedient", "broken", written(tmp_path / "w", broken=1.0), owner="me")
        with pytest.raises(ModelFailedError) as caught:
            await h.ask(1, version=broken)
        assert "path" not in str(caught.value)
        assert h.inference.states() == {"obedient@broken": "failed"}

    run(methods, tmp_path, scenario)


def test_a_name_given_again_means_the_new_version(methods, tmp_path):
    async def scenario(h):
        versions = h.services.versions
        first = versions.publish("obedient", "again", written(tmp_path / "a", factor=3.0), owner="me")
        assert (await h.ask(1, version=first))[0][0] == 3
        versions.delete(first)
        second = versions.publish("obedient", "again", written(tmp_path / "b", factor=5.0), owner="me")
        assert (await h.ask(1, version=second))[0][0] == 5

    run(methods, tmp_path, scenario)


def test_a_method_that_is_broken_as_a_whole_is_not_asked_about_every_input(methods, tmp_path):
    async def scenario(h):
        await h.ask(0)
        batches = h.version.entry.method.batches
        batches.clear()
        inputs = np.full((512, 2), -2, dtype=np.float32)
        reply = h.inference._backend._host.call(Call(h.version.id, 0.0, b"{}", inputs))
        assert len(reply.outputs) == 512
        assert {type(output).__name__ for output in reply.outputs} == {"Failed"}
        assert len(batches) < 64
        inputs[1:] = 1
        reply = h.inference._backend._host.call(Call(h.version.id, 0.0, b"{}", inputs))
        assert type(reply.outputs[0]).__name__ == "Failed"
        assert all(output[0] == 2 for output in reply.outputs[1:])

    run(methods, tmp_path, scenario)


def test_a_busy_model_leaves_threads_for_another(methods, tmp_path):
    async def scenario(h):
        source = methods / "obedient" / "weights"
        slow = [h.services.versions.publish("obedient", f"slow{i}", source, owner="me") for i in range(3)]
        await asyncio.gather(h.ask(0), *(h.ask(0, version=version) for version in slow))
        held = [asyncio.ensure_future(h.ask(i, version=v, seconds=1.0)) for v in slow for i in range(4)]
        await asyncio.sleep(0.05)
        started = time.monotonic()
        await h.ask(1)
        assert time.monotonic() - started < 0.5
        await asyncio.gather(*held)

    run(methods, tmp_path, scenario)


def test_versions_beyond_the_capacity_take_turns(methods, tmp_path):
    async def scenario(h):
        source = methods / "obedient" / "weights"
        published = [h.services.versions.publish("obedient", f"v{i}", source, owner="me") for i in range(4)]
        for _ in range(2):
            for version in published:
                assert (await h.ask(3, version=version))[0][0] == 6
        assert len(h.inference._backend._host._loaded) == 2
        assert sorted(h.inference.states().values()) == ["cold", "cold", "ready", "ready"]

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


def test_a_burst_on_a_backend_that_starts_is_bounded(methods, tmp_path):
    async def scenario(h):
        asked = [asyncio.ensure_future(h.ask(i)) for i in range(20)]
        done = await asyncio.gather(*asked, return_exceptions=True)
        assert sum(isinstance(answer, NotReadyError) for answer in done) == 12
        assert sum(isinstance(answer, list) for answer in done) == 8

    run(methods, tmp_path, scenario, queue_limit=8)


def test_what_is_large_or_has_a_large_answer_travels_by_reference():
    side = Side(np.zeros((2000, 2)))
    asked = Sides(side, side, return_coupling=True)
    assert payload_bytes([Sides(side, side)]) == 2 * 2000 * 2 * 8
    assert payload_bytes([asked, asked]) == 2 * 2000 * 2000 * 24
    assert payload_bytes(np.zeros((3, 28, 28, 1), dtype=np.uint8)) == 3 * 784
    assert payload_bytes(["ab", "c"]) == 3
