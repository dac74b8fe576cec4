"""Requests that become jobs: sent that way, or too large to wait for."""

import numpy as np
import pytest

from tests.contract.examples import example_item, example_request
from tests.contract.waiting import ended


def finish(client, answer):
    """The job of a 202, when it is final."""
    assert answer.status_code == 202, answer.text
    assert answer.headers["location"] == f"/v1/jobs/{answer.json()['id']}"
    assert int(answer.headers["retry-after"]) >= 1
    return ended(client, answer.json()["id"])


@pytest.mark.timeout(180)
def test_a_job_answers_what_the_route_answers(client, worker, registry):
    entry = registry["align-uniform"]
    route, body = example_request(entry, entry.shipped(), count=70)  # more than one batch
    job = finish(client, client.post(route, json=body, headers={"Prefer": "respond-async"}))
    assert job["status"] == "succeeded", job
    assert job["kind"] == "predict"
    result = client.get(f"/v1/jobs/{job['id']}/result").json()
    direct = client.post(route, json=body).json()
    assert [item["index"] for item in result["data"]] == list(range(70))
    ours, theirs = (np.array([item["embedding"] for item in answer["data"]]) for answer in (result, direct))
    assert np.allclose(ours, theirs, atol=1e-5)


@pytest.mark.timeout(180)
def test_a_distance_of_large_sides_is_a_job(client, worker):
    rng = np.random.default_rng(0)
    sides = [{"points": rng.normal(size=(1001, 32)).round(3).tolist()} for _ in range(2)]
    body = {"model": "robust-ot", "a": sides[0], "b": sides[1]}
    job = finish(client, client.post("/v1/distances", json=body))
    assert job["status"] == "succeeded", job
    result = client.get(f"/v1/jobs/{job['id']}/result").json()
    assert result["object"] == "distance"
    assert 0 < result["details"]["lower_bound"] <= result["distance"] * (1 + 1e-9)


@pytest.mark.timeout(180)
def test_what_only_the_method_can_refuse_fails_the_job_with_the_reason(client, worker):
    side = {"points": [[0.0], [1.0]]}
    body = {"model": "otdd", "a": side, "b": side}
    direct = client.post("/v1/distances", json=body)
    assert direct.status_code == 422
    job = finish(client, client.post("/v1/distances", json=body, headers={"Prefer": "respond-async"}))
    assert job["status"] == "failed"
    assert "labels" in job["error"]["detail"]
    assert client.get(f"/v1/jobs/{job['id']}/result").status_code == 422


def test_a_bad_request_is_refused_before_it_is_queued(client, registry):
    spec = registry["align-uniform"].shipped().config.input
    headers = {"Prefer": "respond-async"}
    body = {"model": "align-uniform", "input": [example_item(spec)], "parameters": {"nonsense": 1}}
    answer = client.post("/v1/embeddings", json=body, headers=headers)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == "/parameters/nonsense"
    jobs = client.post("/v1/jobs", json={"kind": "predict", "model": "align-uniform", "parameters": {"request": {}}})
    assert jobs.status_code == 422
    assert jobs.json()["errors"][0]["field"] == "/parameters/request/input"
