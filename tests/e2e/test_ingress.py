"""The same application inside Ray Serve behind HAProxy, as on a cluster."""

import signal
import sys
import time

import httpx
import numpy as np
import pytest

from models.core.registry import Registry
from tests.contract.examples import example_item
from tests.e2e.stack import Stack, free_port

pytestmark = [pytest.mark.stack, pytest.mark.timeout(180)]

KEY = "dn_ingress-test"
HEADERS = {"Authorization": f"Bearer {KEY}"}


@pytest.fixture(scope="module")
def ingress(tmp_path_factory, module_monkeypatch):
    module_monkeypatch.setenv("RAY_SERVE_ENABLE_HA_PROXY", "1")
    module_monkeypatch.setenv("RAY_SERVE_HAPROXY_METRICS_PORT", str(free_port()))
    module_monkeypatch.setenv("RAY_SERVE_HAPROXY_STATS_PORT", str(free_port()))
    module_monkeypatch.setenv("RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S", "1")  # no balancer to wait for here
    command = (sys.executable, "-m", "service.ingress")
    running = Stack(tmp_path_factory.mktemp("ingress"), command, api_keys=KEY).start()
    until = time.monotonic() + 90
    try:
        while not answers(running):
            assert running.process.poll() is None, running.story()
            assert time.monotonic() < until, running.story()
            time.sleep(0.5)
        yield running
    finally:
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(30) == 0
        assert running.gone(10) == []


@pytest.fixture(scope="module")
def module_monkeypatch():
    with pytest.MonkeyPatch.context() as patch:
        yield patch


def answers(running):
    try:
        return httpx.get(f"{running.base_url}/readyz", timeout=5).json()["checks"]["serve"] == "ok"
    except (httpx.HTTPError, ValueError, KeyError):
        return False


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
