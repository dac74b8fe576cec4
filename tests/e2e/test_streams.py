"""Generated pictures on the whole stack: streams through Ray Serve, crowds in one batch, clients that leave."""

import concurrent.futures
import json
import re
import socket
import time

import openai
import pytest

from tests.contract.small import train_small_methods
from tests.e2e.stack import Stack

pytestmark = [pytest.mark.stack, pytest.mark.timeout(240)]
ROUTE = "/v1/images/generations"
SLOW = {"steps": 10_000_000}


@pytest.fixture(scope="module")
def drawing(tmp_path_factory):
    methods = train_small_methods(tmp_path_factory.mktemp("methods"), tmp_path_factory.mktemp("training"))
    stack = Stack(tmp_path_factory.mktemp("home"), methods_path=methods).start()
    try:
        yield stack.wait_ready()
    finally:
        stack.stop()


@pytest.fixture(scope="module")
def sdk(drawing):
    return openai.OpenAI(base_url=f"{drawing.base_url}/v1", api_key="none", max_retries=0)


def draw(http, **body):
    answer = http.post(ROUTE, json={"model": "langevin", **body})
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]


def batches(http):
    metrics = http.get("/metrics").text
    found = re.findall(r'deepnight_inference_batch_size_(count|sum){model="langevin@1"} (\S+)', metrics)
    return {name: float(value) for name, value in found}


def test_previews_come_while_it_draws(drawing, sdk):
    parameters = {"seed": 3, "class_label": 4, "steps": 20_000}
    options = {"partial_images": 3, "extra_body": {"parameters": parameters}}
    started = time.monotonic()
    stream = sdk.images.generate(model="langevin", prompt="4", stream=True, **options)
    seen = [(event.type, time.monotonic() - started) for event in stream]
    kinds = [kind for kind, _ in seen]
    assert kinds == ["image_generation.partial_image"] * 3 + ["image_generation.completed"]
    assert seen[0][1] < 0.6 * seen[-1][1], "the first preview came with the picture"
    with drawing.client() as http:
        parameters["steps"] = 500
        plain = draw(http, parameters=parameters)[0]["b64_json"]
        streamed = [
            *sdk.images.generate(model="langevin", prompt="4", stream=True, extra_body={"parameters": parameters})
        ]
    assert streamed[-1].b64_json == plain


def test_a_seed_gives_the_same_bytes_alone_and_in_a_crowd(drawing):
    with drawing.client() as http:
        parameters = [{"seed": seed, "steps": 400} for seed in range(8)]
        alone = [draw(http, parameters=each)[0] for each in parameters]
        before = batches(http)
        with concurrent.futures.ThreadPoolExecutor(8) as crowd:
            together = list(crowd.map(lambda each: draw(http, n=4, parameters=each)[0], parameters))
        after = batches(http)
    assert together == alone
    calls, items = (after[name] - before[name] for name in ("count", "sum"))
    assert items == 32
    assert calls < 8, "requests in flight share calls"


def test_clients_that_leave_end_the_work(drawing):
    body = json.dumps({"model": "langevin", "stream": True, "partial_images": 3, "parameters": SLOW}).encode()
    head = f"POST {ROUTE} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    for _ in range(20):  # more than a replica has threads
        with socket.create_connection(("127.0.0.1", drawing.port)) as connection:
            connection.sendall(head.encode() + body)
            time.sleep(0.2)
    with drawing.client() as http:
        until = time.monotonic() + 20
        counted = re.compile(r'deepnight_inference_requests_total{model="langevin@1",outcome="cancelled"} 20.0')
        while not counted.search(http.get("/metrics").text):
            assert time.monotonic() < until, http.get("/metrics").text
            time.sleep(0.1)
        started = time.monotonic()
        draw(http, parameters={"steps": 400})
        assert time.monotonic() - started < 2, "the replica still draws for those who left"


def test_a_deadline_ends_a_stream(drawing, sdk):
    options = {"extra_headers": {"Prefer": "wait=2"}, "extra_body": {"parameters": SLOW}}
    with pytest.raises(openai.APIError, match="deadline"):
        list(sdk.images.generate(model="langevin", prompt="4", stream=True, partial_images=1, **options))
    with drawing.client() as http:
        started = time.monotonic()
        draw(http, parameters={"steps": 400})
        assert time.monotonic() - started < 2
