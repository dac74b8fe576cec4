"""The service over HTTP with its blobs in S3: gateway and worker share no disk."""

import hashlib
import json
import time

import pytest

from models.core.store import BlobStore
from service.auth import REFRESH_S
from service.keys import KeyStore
from tests import s3
from tests.e2e.gateways import KEY, Fleet

pytestmark = [pytest.mark.stack, pytest.mark.timeout(240), s3.needed]

CSV = "a,b,c,d,e,label\n" + "".join(f"{n},{n % 3},{n % 5},1,{n % 7},{'pq'[n % 2]}\n" for n in range(120))
DISTANCE = {"model": "robust-ot", "a": {"points": [[0, 0], [1, 0]]}, "b": {"points": [[0, 1], [1, 1]]}}


@pytest.fixture(scope="module")
def server():
    running = s3.S3()
    yield running
    running.close()


@pytest.fixture(scope="module")
def fleet(server):
    with pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment().items():
            patch.setenv(name, value)
        running = Fleet(store_url=f"s3://{s3.BUCKET}/life")
        try:
            running.worker(job_lease_s=3)
            yield running
        finally:
            running.close()


@pytest.fixture(scope="module")
def gateway(fleet):
    return fleet.gateway()


@pytest.fixture
def http(gateway):
    return gateway.http


@pytest.fixture
def store(fleet):
    return BlobStore(fleet.store_url)


def upload(http, text=CSV):
    answer = http.post("/v1/datasets", files={"file": ("points.csv", text)})
    assert answer.status_code in (200, 201), answer.text
    return answer.json()["id"]


def submit(http, **fields):
    answer = http.post("/v1/jobs", json=fields)
    assert answer.status_code == 202, answer.text
    return answer.json()["id"]


def finish(http, job):
    record = http.get(f"/v1/jobs/{job}?wait=60").json()
    assert record["status"] == "succeeded", record
    return record


def test_from_an_upload_to_what_was_made_of_it(http, store):
    dataset = upload(http)
    (stored,) = (key for key in store.keys("datasets") if key.endswith("/file.csv"))
    assert store.get(stored).decode() == CSV
    part = http.get(f"/v1/datasets/{dataset}/content", headers={"Range": "bytes=2-6"})
    assert (part.status_code, part.text) == (206, CSV[2:7])
    assert http.get(f"/v1/datasets/{dataset}/samples?offset=118").json()["data"][1]["label"] == "q"

    job = submit(http, kind="derive", dataset=dataset, parameters={"note": "from a worker without this disk"})
    (artifact,) = finish(http, job)["artifacts"]
    whole = http.get(f"/v1/jobs/{job}/artifacts/note.txt")
    assert hashlib.sha256(whole.content).hexdigest() == artifact["sha256"]
    end = http.get(f"/v1/jobs/{job}/artifacts/note.txt", headers={"Range": "bytes=-4"})
    assert (end.status_code, end.text) == (206, "disk")
    same = http.get(f"/v1/jobs/{job}/artifacts/note.txt", headers={"If-None-Match": whole.headers["etag"]})
    assert same.status_code == 304
    made = http.get(f"/v1/jobs/{job}/result").json()["dataset"]
    assert http.get(f"/v1/datasets/{made}").json()["samples"] == 60

    for name in (dataset, made):
        assert http.delete(f"/v1/datasets/{name}").status_code == 204
    assert store.keys("datasets") == []


def test_a_trained_version_is_served_from_there(http, store):
    dataset = upload(http)
    finish(http, submit(http, kind="train", model="test-steps", dataset=dataset, parameters={"version": "far"}))
    body = {"model": "test-steps@far", "input": {"type": "sample", "dataset": dataset, "index": 0}}
    answer = http.post("/v1/classifications", json=body)
    assert answer.status_code == 200, answer.text
    assert store.exists("versions/test-steps/far/weights.safetensors")
    assert http.delete("/v1/models/test-steps@far").status_code == 204
    assert store.keys("versions") == []


def test_half_an_upload_leaves_nothing(gateway, http, store):
    before = store.keys("datasets")

    def half():
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="half.csv"\r\n\r\na,b,label\n'
        yield b"1,2,p\n" * 500_000
        raise ConnectionAbortedError

    with pytest.raises(ConnectionAbortedError):
        gateway.client(KEY).post(
            "/v1/datasets", content=half(), headers={"Content-Type": "multipart/form-data; boundary=x"}
        )
    time.sleep(1)
    assert http.get("/readyz").status_code == 200
    assert store.keys("datasets") == before


def test_a_store_that_is_away_is_said_and_waited_for(fleet, server, gateway, http):
    dataset = upload(http)
    _, secret = KeyStore(BlobStore(fleet.store_url)).create("kept", ["infer"])
    time.sleep(REFRESH_S)
    known, stranger = gateway.client(secret), gateway.client("dn_nobody")
    assert known.post("/v1/distances", json=DISTANCE).status_code == 200
    job = submit(http, kind="steps", parameters={"steps": 40, "pause": 0.1})
    fleet.until(lambda: http.get(f"/v1/jobs/{job}").json()["progress"]["fraction"] > 0.2, "progress")
    server.shut()
    try:
        readiness = fleet.until(lambda: (answer := http.get("/readyz")).status_code == 503 and answer, "a 503")
        assert readiness.json()["checks"]["store"] == "unreachable"
        time.sleep(REFRESH_S)
        for ask in (
            lambda: http.get(f"/v1/datasets/{dataset}"),
            lambda: http.get("/v1/datasets"),
            lambda: http.post("/v1/datasets", files={"file": ("other.csv", CSV + "1,1,1,1,1,p\n")}),
            lambda: http.get("/v1/models/align-uniform"),
        ):
            answer = ask()
            assert answer.status_code == 503, answer.text
            assert answer.json()["type"] == "urn:deepnight:problem:store_unavailable"
            assert int(answer.headers["retry-after"]) >= 1
        assert known.post("/v1/distances", json=DISTANCE).status_code == 200, "what was known is served on"
        assert stranger.post("/v1/distances", json=DISTANCE).status_code == 401, "and nobody new is let in"
        assert http.get("/healthz").status_code == 200
        time.sleep(3)
        assert http.get(f"/v1/jobs/{job}").json()["status"] == "running", "the job waits"
    finally:
        server.open()
    fleet.until(lambda: http.get("/readyz").status_code == 200, "the store again")
    assert http.get(f"/v1/datasets/{dataset}").status_code == 200
    assert finish(http, job)["attempts"] == 1, "nothing was done again"


def test_the_secret_is_in_no_log_and_no_answer(fleet, gateway, http, server):
    """After all of the above: what failed was logged."""
    logs = fleet.logs(whole=True)
    assert "the store does not answer" in logs
    told = [http.get(route).text for route in ("/metrics", "/readyz", "/v1/models", "/openapi.json")]
    told += [json.dumps(http.get("/v1/jobs?limit=100").json()), logs]
    assert all(s3.SECRET not in text for text in told)
