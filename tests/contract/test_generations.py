"""POST /v1/images/generations with a small method that draws digits: classes, seeds, streams, jobs, tensors."""

import base64
import concurrent.futures
import io
import json
import socket
import time

import numpy as np
import openai
import pytest
import tritonclient.http
from PIL import Image

from models.core.sources import load
from tests.contract.conftest import KEY
from tests.contract.test_every_route import check_problem
from tests.contract.test_predict_jobs import finish

ROUTE = "/v1/images/generations"
SLOW = {"steps": 10_000_000}  # minutes


@pytest.fixture(scope="module")
def http(capable):
    with capable.client() as client:
        yield client


@pytest.fixture(scope="module")
def sdk(capable):
    return openai.OpenAI(base_url=f"{capable.url}/v1", api_key=KEY, max_retries=0)


def pixels(item):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(item["b64_json"]))))


def draw(http, status=200, headers=None, **body):
    parameters = body.pop("parameters", {})
    answer = http.post(ROUTE, json={"model": "langevin", "parameters": parameters, **body}, headers=headers)
    assert answer.status_code == status, answer.text
    return answer.json()


def metric(http, text):
    lines = [line for line in http.get("/metrics").text.splitlines() if line.startswith(text)]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def test_a_picture_looks_like_its_class(http):
    digits = load("digits-8x8", "all")
    means = np.stack([digits.inputs[digits.labels == c].mean(axis=0)[..., 0] for c in range(10)])
    answer = draw(http, n=8, parameters={"class_label": 3, "seed": 5})
    assert [item["seed"] for item in answer["data"]] == list(range(5, 13))
    assert {item["class_label"] for item in answer["data"]} == {"3"}
    drawn = np.mean([pixels(item) for item in answer["data"]], axis=0)
    assert np.argmin(((means - drawn) ** 2).sum(axis=(1, 2))) == 3
    assert answer["size"] == "8x8"
    assert answer["model"] == "langevin@1"
    assert answer["data"][0]["steps"] == 100


def test_the_seed_alone_gives_the_same_bytes_alone_and_in_a_crowd(http):
    alone = {seed: draw(http, parameters={"seed": seed, "steps": 60})["data"][0] for seed in range(20, 28)}
    calls = metric(http, 'deepnight_inference_batch_size_count{model="langevin@1"}')
    with concurrent.futures.ThreadPoolExecutor(8) as crowd:
        bodies = [{"n": 4, "parameters": {"seed": seed, "steps": 60}} for seed in range(20, 28)]
        together = list(crowd.map(lambda body: draw(http, **body), bodies))
    calls = metric(http, 'deepnight_inference_batch_size_count{model="langevin@1"}') - calls
    for seed, answer in zip(range(20, 28), together, strict=True):
        assert answer["data"][0] == alone[seed]  # class drawn by the seed, pixels, PNG bytes
    assert len({item["class_label"] for item in alone.values()}) > 1
    assert calls < 8, "requests in flight share calls"


@pytest.mark.parametrize(
    ("prompt", "label"), [("7", "7"), ("a 7", "7"), ("A picture of the 7", "7"), ("7s", "7"), ("", None), (None, None)]
)
def test_a_prompt_names_a_class(http, prompt, label):
    item = draw(http, prompt=prompt)["data"][0]
    assert item["class_label"] == label if label else item["class_label"] in "0123456789"


def test_unconditional_means_no_class(http):
    assert draw(http, parameters={"unconditional": True, "seed": 1})["data"][0]["class_label"] is None


BAD = [
    ({"prompt": "a red dragon"}, "/prompt"),
    ({"prompt": "a 7 on Mars"}, "/prompt"),
    ({"prompt": "7", "parameters": {"class_label": 3}}, "/parameters/class_label"),
    ({"parameters": {"class_label": 10}}, "/parameters/class_label"),
    ({"parameters": {"class_label": -1}}, "/parameters/class_label"),
    ({"parameters": {"class_label": True}}, "/parameters/class_label"),
    ({"parameters": {"class_label": [1]}}, "/parameters/class_label"),
    ({"parameters": {"class_label": 1, "unconditional": True}}, "/parameters/unconditional"),
    ({"parameters": {"unconditional": 1}}, "/parameters/unconditional"),
    ({"parameters": {"seed": -1}}, "/parameters/seed"),
    ({"parameters": {"seed": 1 << 63}}, "/parameters/seed"),
    ({"parameters": {"seed": "1"}}, "/parameters/seed"),
    ({"parameters": {"steps": 0}}, "/parameters/steps"),
    ({"parameters": {"nonsense": 0}}, "/parameters/nonsense"),
    ({"size": "1024x1024"}, "/size"),
    ({"size": "8x9"}, "/size"),
    ({"response_format": "url"}, "/response_format"),
    ({"output_format": "jpeg"}, "/output_format"),
    ({"n": 0}, "/n"),
    ({"n": 65}, "/n"),
    ({"partial_images": 4}, "/partial_images"),
    ({"stream": "yes"}, "/stream"),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("body", "field"), BAD, ids=[json.dumps(body) for body, _ in BAD])
def test_what_is_wrong_is_named(http, body, field, stream):
    answer = http.post(ROUTE, json={"model": "langevin", "stream": stream} | body)
    problem = check_problem(answer, 422)
    assert problem["errors"][0]["field"] == field
    assert problem["error"]["param"] == field[1:].replace("/", ".")


def test_a_prompt_without_a_class_lists_the_classes(http):
    detail = http.post(ROUTE, json={"model": "langevin", "prompt": "a dragon"}).json()["detail"]
    assert "0 0, 1 1, 2 2" in detail
    assert "8x8" in http.post(ROUTE, json={"model": "langevin", "size": "9x9"}).json()["detail"]


def test_the_last_seed_wraps_around(http):
    answer = draw(http, n=2, parameters={"seed": (1 << 63) - 1})
    assert [item["seed"] for item in answer["data"]] == [(1 << 63) - 1, 0]


@pytest.mark.timeout(120)
def test_many_passes_become_a_job_with_the_same_pictures(http):
    body = {"n": 3, "parameters": {"seed": 7, "class_label": "2", "steps": 1000}}
    answer = http.post(ROUTE, json={"model": "langevin", **body})
    job = finish(http, answer)
    assert (job["status"], job["kind"]) == ("succeeded", "predict"), job
    result = http.get(f"/v1/jobs/{job['id']}/result").json()
    single = draw(http, parameters={"seed": 9, "class_label": "2", "steps": 1000})
    assert result["data"][2] == single["data"][0]


def events(http, **body):
    with http.stream("POST", ROUTE, json={"model": "langevin", "stream": True, **body}) as answer:
        assert answer.status_code == 200, answer.read()
        assert answer.headers["content-type"].startswith("text/event-stream")
        for line in answer.iter_lines():
            if line.startswith("data: "):
                yield json.loads(line[6:])


def test_a_stream_ends_with_the_pictures_of_the_plain_route(http):
    body = {"n": 2, "parameters": {"seed": 3, "class_label": 4, "steps": 500}}
    got = list(events(http, partial_images=3, **body))
    previews = [event for event in got if event["type"] == "image_generation.partial_image"]
    finals = [event for event in got if event["type"] == "image_generation.completed"]
    assert [(event["index"], event["partial_image_index"]) for event in previews] == [
        (index, partial) for partial in range(3) for index in range(2)
    ]
    fractions = [event["fraction"] for event in previews if event["index"] == 0]
    assert np.allclose(fractions, [0.25, 0.5, 0.75], atol=0.05)
    assert [event["b64_json"] for event in finals] == [item["b64_json"] for item in draw(http, **body)["data"]]
    assert len({event["b64_json"] for event in got}) == 8
    assert [event["type"] for event in events(http, **body)] == ["image_generation.completed"] * 2


def test_openai_generates_and_streams(sdk, http):
    plain = sdk.images.generate(model="langevin", prompt="4", n=2, extra_body={"parameters": {"seed": 3}})
    assert [item.seed for item in plain.data] == [3, 4]
    assert plain.usage.output_tokens == 2
    stream = sdk.images.generate(
        model="langevin", prompt="4", stream=True, partial_images=2, size="8x8", extra_body={"parameters": {"seed": 3}}
    )
    got = list(stream)
    assert [event.type for event in got] == ["image_generation.partial_image"] * 2 + ["image_generation.completed"]
    assert [event.partial_image_index for event in got[:2]] == [0, 1]
    assert got[-1].b64_json == plain.data[0].b64_json
    assert got[-1].usage.total_tokens == 1


def test_openai_errors_and_timeouts(sdk):
    with pytest.raises(openai.UnprocessableEntityError) as caught:
        sdk.images.generate(model="langevin", prompt="a dragon")
    assert caught.value.code == "unknown_class"
    assert caught.value.param == "prompt"
    with pytest.raises(openai.UnprocessableEntityError):
        sdk.images.generate(model="langevin", prompt="a dragon", stream=True)
    with pytest.raises(openai.BadRequestError) as wrong:
        sdk.images.generate(model="aum", prompt="4")
    assert wrong.value.code == "wrong_capability"
    with pytest.raises(openai.APITimeoutError):
        list(
            sdk.images.generate(model="langevin", prompt="4", stream=True, timeout=0.5, extra_body={"parameters": SLOW})
        )


@pytest.mark.parametrize("wait", ["0.3", "1.5"], ids=["before the first byte", "after it"])
def test_a_stream_keeps_its_deadline(sdk, http, wait):
    options = {"extra_headers": {"Prefer": f"wait={wait}"}, "extra_body": {"parameters": SLOW}}
    started = time.monotonic()
    with pytest.raises(openai.APIError, match="deadline"):
        list(sdk.images.generate(model="langevin", prompt="4", stream=True, **options))
    assert time.monotonic() - started < 4
    draw(http, n=1)  # the slots are free again


def test_a_client_that_leaves_ends_the_work(capable, http):
    counted = 'deepnight_inference_requests_total{model="langevin@1",outcome="cancelled"}'
    before = metric(http, counted)
    body = json.dumps({"model": "langevin", "stream": True, "partial_images": 3, "parameters": SLOW}).encode()
    head = f"POST {ROUTE} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Length: {len(body)}\r\n\r\n"
    pool = capable.app.state.services.inference._backend._threads
    for _ in range(20):  # more than there are threads: each must be given back
        with socket.create_connection(("127.0.0.1", capable.settings.port)) as connection:
            connection.sendall(head.encode() + body)
            time.sleep(0.05)
    until = time.monotonic() + 10
    while metric(http, counted) < before + 20 or pool._work_queue.qsize():
        assert time.monotonic() < until, metric(http, counted)
        time.sleep(0.05)
    assert draw(http, parameters={"steps": 10})["data"]


def test_too_many_streams_are_refused_at_once(capable):
    body = {"model": "langevin", "stream": True, "n": 64, "parameters": SLOW}
    answers = []
    with capable.client() as http, concurrent.futures.ThreadPoolExecutor(8) as crowd:
        open_streams = [crowd.submit(lambda: list(events_or_status(http, body, 2.5))) for _ in range(6)]
        answers = [found for stream in open_streams for found in stream.result()]
    refused = [answer for answer in answers if answer[0] == 503]
    assert refused, answers
    assert all(int(retry) >= 1 for _, retry in refused)


def events_or_status(http, body, seconds):
    with http.stream("POST", ROUTE, json=body, headers={"Prefer": f"wait={seconds}"}) as answer:
        yield answer.status_code, answer.headers.get("retry-after")
        answer.read()


def test_tensors(capable, http):
    client = tritonclient.http.InferenceServerClient(f"127.0.0.1:{capable.settings.port}")
    headers = {"Authorization": f"Bearer {KEY}"}
    metadata = client.get_model_metadata("langevin", headers=dict(headers))
    assert metadata["outputs"] == [{"name": "image", "datatype": "UINT8", "shape": [-1, 8, 8, 1]}]
    values = {"class_index": np.array([4, -1]), "seed": np.array([3, 1])}
    inputs = [tritonclient.http.InferInput(name, [2], "INT64") for name in values]
    for tensor, array in zip(inputs, values.values(), strict=True):
        tensor.set_data_from_numpy(array)
    images = client.infer("langevin", inputs, headers=dict(headers)).as_numpy("image")
    expected = [{"seed": 3, "class_label": 4}, {"seed": 1, "unconditional": True}]
    for image, parameters in zip(images, expected, strict=True):
        assert (image[..., 0] == pixels(draw(http, parameters=parameters)["data"][0])).all()
    client.close()


BAD_TENSORS = [
    ([4, 10], [1, 1], "class_index"),
    ([-2, 0], [1, 1], "class_index"),
    ([0, 0], [-1, 0], "seed"),
    ([0], [1, 2], "seed"),
]


@pytest.mark.parametrize(("classes", "seeds", "field"), BAD_TENSORS)
def test_bad_tensors_are_named(http, classes, seeds, field):
    inputs = [
        {"name": name, "datatype": "INT64", "shape": [len(data)], "data": data}
        for name, data in (("class_index", classes), ("seed", seeds))
    ]
    problem = check_problem(http.post("/v2/models/langevin/infer", json={"inputs": inputs}), 422)
    assert problem["errors"][0]["field"] == field


def test_card_and_document_show_classes_and_parameters(http):
    card = http.get("/v1/models/langevin").json()
    assert card["classes"] == [str(digit) for digit in range(10)]
    assert {"class_label", "seed", "unconditional", "steps"} == card["parameters"]["properties"].keys()
    document = http.get("/openapi.json").json()
    own = document["components"]["schemas"]["langevin-parameters"]["properties"]
    assert own.keys() == card["parameters"]["properties"].keys()
    assert "text/event-stream" in document["paths"][ROUTE]["post"]["responses"]["200"]["content"]
