"""The whole stack on a GPU: replicas with a share of it answer as the CPU does, and a training job runs on it."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from deepnight.client import Client
from models.core.registry import Registry
from tests.contract.examples import example_request
from tests.e2e.stack import Stack
from tests.unit.cuda import needs_cuda

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300), needs_cuda]


@pytest.fixture(scope="module")
def cpu(tmp_path_factory):
    yield from serve(tmp_path_factory.mktemp("cpu"), device="cpu")


@pytest.fixture(scope="module")
def gpu(tmp_path_factory):
    yield from serve(tmp_path_factory.mktemp("gpu"), device="cuda", num_gpus=0.5)


@pytest.fixture(scope="module")
def half_precision(tmp_path_factory):
    yield from serve(tmp_path_factory.mktemp("half"), device="cuda", num_gpus=0.5, precision="bfloat16")


def serve(home, **settings):
    stack = Stack(home, **settings).start()
    try:
        yield stack.wait_ready()
    finally:
        stack.stop()


MODELS = [
    pytest.param(entry, checkpoint, f"{entry.slug}@{name}", id=f"{entry.slug}@{name}")
    for entry in Registry().values()
    for name, checkpoint in entry.all_shipped().items()
]


def ask(stack, entry, checkpoint, model):
    route, body = example_request(entry, checkpoint, count=4)
    with stack.client() as client:
        answer = client.post(route, json={**body, "model": model})
    assert answer.status_code == 200, f"{answer.text}\n{stack.story()}"
    return answer.json()


def numbers(capability, answer):
    """What an answer says as an array that can be compared."""
    match capability:
        case "embed":
            return np.array([item["embedding"] for item in answer["data"]])
        case "classify":
            scores = [{label["label"]: label["score"] for label in item["labels"]} for item in answer["data"]]
            return np.array([[item[name] for name in sorted(item)] for item in scores])
        case "distance":
            return np.array([answer["distance"]])
        case "generate":
            pictures = [Image.open(io.BytesIO(base64.b64decode(item["b64_json"]))) for item in answer["data"]]
            return np.stack([np.asarray(picture, dtype=float) / 255 for picture in pictures])
        case "summarise":
            return np.array([item["candidates"][0]["reward"] for item in answer["data"]])


@pytest.mark.parametrize(("entry", "checkpoint", "model"), MODELS)
def test_a_gpu_answers_as_the_cpu_does(cpu, gpu, entry, checkpoint, model):
    capability = entry.card.capability
    expected, found = (numbers(capability, ask(stack, entry, checkpoint, model)) for stack in (cpu, gpu))
    assert found.shape == expected.shape
    if capability == "summarise":  # a tie between two tokens may fall the other way: the summaries are as good
        assert np.median(np.abs(found - expected)) < 0.05
    else:
        assert np.median(np.abs(found - expected)) < 1e-3
        assert np.abs(found - expected).mean() < 0.01


@pytest.mark.parametrize(("entry", "checkpoint", "model"), MODELS)
def test_half_precision_answers_nearly_so(cpu, half_precision, entry, checkpoint, model):
    capability = entry.card.capability
    expected, found = (numbers(capability, ask(stack, entry, checkpoint, model)) for stack in (cpu, half_precision))
    assert found.shape == expected.shape
    assert np.isfinite(found).all()
    if capability != "summarise":
        assert np.median(np.abs(found - expected)) < 0.03


def test_the_replicas_load_on_the_gpu(gpu):
    ask(gpu, *MODELS[0].values)
    log = (gpu.home / "logs" / "replicas.log").read_text()
    devices = re.findall(r".*model loaded.*", log)
    assert devices
    assert all("cuda" in line for line in devices), devices


def test_a_training_job_runs_on_the_gpu_and_its_version_answers(gpu, tmp_path):
    rng = np.random.default_rng(0)
    labels = np.arange(400) % 2
    images = np.clip(rng.normal(60 + 120 * labels[:, None, None], 25, (400, 28, 28)), 0, 255).astype(np.uint8)
    np.savez(tmp_path / "two.npz", images=images, labels=labels)
    with Client(gpu.base_url) as client:
        dataset = client.upload(tmp_path / "two.npz")
        job = client.submit("train", model="aum", dataset=dataset, parameters={"version": "on-gpu"})
        client.wait(job)
        assert client.classify("aum@on-gpu", images[1:2, ..., None])[0].labels[0] == "1"
