"""The same application inside Ray Serve behind HAProxy, as on a cluster."""

import json
import time
from pathlib import Path

import httpx
import numpy as np
import pytest

from models.core.registry import Registry
from service.rayruntime import NOTE
from tests.contract.examples import example_item
from tests.e2e.proxied import proxied

pytestmark = [pytest.mark.stack, pytest.mark.timeout(180)]

KEY = "dn_ingress-test"
HEADERS = {"Authorization": f"Bearer {KEY}"}


@pytest.fixture(scope="module")
def ingress(tmp_path_factory):
    with proxied(tmp_path_factory.mktemp("ingress"), KEY) as running:
        yield running


def test_it_answers_as_on_one_machine(ingress):
    spec = Registry()["align-uniform"].shipped().config.input
    body = {"model": "align-uniform", "input": [example_item(spec, seed) for seed in range(3)]}
    with httpx.Client(base_url=ingress.base_url, headers=HEADERS, timeout=60) as http:
        answer = http.post("/v1/embeddings", json=body)
        assert answer.status_code == 200, answer.text
        assert answer.headers["x-request-id"]
        embeddings = np.array([item["embedding"] for item in answer.json()["data"]])
        assert np.allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-5)
        assert http.post("/v1/embeddings", json={"model": "none", "input": "x"}).status_code == 404


def test_it_tells_a_probe_that_it_takes_requests(ingress):
    assert httpx.get(f"{ingress.base_url}/-/healthz", timeout=5).status_code == 200


def test_keys_are_asked_for_and_jobs_say_that_redis_is_away(ingress):
    assert httpx.get(f"{ingress.base_url}/v1/models", timeout=30).status_code == 401
    refused = httpx.post(
        f"{ingress.base_url}/v1/jobs", headers=HEADERS, json={"kind": "evaluate", "model": "align-uniform"}
    )
    assert refused.status_code == 503
    assert int(refused.headers["retry-after"]) >= 1


def test_requests_are_logged_as_json_beside_rays_logs(ingress):
    named = {"X-Request-ID": "a-line-of-json"}
    assert httpx.get(f"{ingress.base_url}/v1/models", headers=HEADERS | named, timeout=30).status_code == 200
    folder = Path((ingress.home / NOTE).read_text())
    until = time.monotonic() + 10
    while not (lines := _lines_of(folder, named["X-Request-ID"])):
        assert time.monotonic() < until, sorted(folder.rglob("*.err"))
        time.sleep(0.2)
    assert json.loads(lines[0])["status"] == 200


def _lines_of(folder, request_id):
    texts = (path.read_text(errors="replace") for path in folder.rglob("worker-*.err"))
    return [line for text in texts for line in text.splitlines() if request_id in line]
