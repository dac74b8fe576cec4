"""Two gateways on one Redis and one store are one service: what one was told holds at the other."""

import json
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import httpx
import pytest

from models.core.store import BlobStore
from service.auth import REFRESH_S
from service.catalog import FRESH_S
from service.keys import KeyStore
from tests.e2e.gateways import KEY, Fleet

pytestmark = [pytest.mark.stack, pytest.mark.timeout(180)]

CSV = "a,b,label\n" + "".join(f"{n},{n % 3},{'pq'[n % 2]}\n" for n in range(60))


@pytest.fixture(scope="module")
def fleet():
    running = Fleet(requests_per_minute=100_000)
    try:
        running.worker()
        yield running
    finally:
        running.close()


@pytest.fixture(scope="module")
def a(fleet):
    return fleet.gateway()


@pytest.fixture(scope="module")
def b(fleet):
    return fleet.gateway()


def submit(http, headers=None, **fields):
    answer = http.post("/v1/jobs", json=fields, headers=headers)
    assert answer.status_code == 202, answer.text
    return answer.json()["id"]


def ended(http, job):
    record = http.get(f"/v1/jobs/{job}?wait=40").json()
    assert record["status"] in ("succeeded", "failed", "cancelled"), record
    return record


def events(http, job, after=None, most=10**6):
    """At most ``most`` events ``(id, name, data)`` of a job after an id, until they end or the connection does."""
    found = []
    headers = {"Last-Event-ID": after} if after else {}
    with suppress(httpx.HTTPError), http.stream("GET", f"/v1/jobs/{job}/events", headers=headers) as stream:
        fields = {}
        for line in stream.iter_lines():
            if line:
                name, _, value = line.partition(": ")
                fields[name] = value
            elif "data" in fields:
                found.append((fields["id"], fields["event"], json.loads(fields["data"])))
                if len(found) == most:
                    break
            if not line:
                fields = {}
    return found


def upload(http, text=CSV):
    answer = http.post("/v1/datasets", files={"file": ("points.csv", text)})
    assert answer.status_code in (200, 201), answer.text
    return answer.json()["id"]


def test_a_data_set_of_one_is_there_at_the_other_and_gone_with_it(a, b):
    dataset = upload(a.http)
    assert b.http.get(f"/v1/datasets/{dataset}/content").text == CSV
    assert b.http.get(f"/v1/datasets/{dataset}/samples?limit=3").json()["data"][2]["label"] == "p"
    assert upload(b.http) == dataset
    assert b.http.delete(f"/v1/datasets/{dataset}").status_code == 204
    assert a.http.get(f"/v1/datasets/{dataset}/samples").status_code == 404, "its copy of the rows is not believed"


def test_a_job_of_one_is_followed_and_cancelled_at_the_other(a, b):
    job = submit(a.http, kind="steps", parameters={"steps": 2000, "pause": 0.05})
    first = events(a.http, job, most=8)
    second = events(b.http, job, after=first[-1][0], most=8)
    assert b.http.delete(f"/v1/jobs/{job}").status_code == 202
    rest = events(a.http, job, after=second[-1][0])
    assert rest[-1][1:] == ("status", {"status": "cancelled"})
    whole = events(b.http, job)
    assert [event[0] for event in first + second + rest] == [event[0] for event in whole], "no gap, no repetition"
    assert ended(a.http, job)["status"] == "cancelled"


def test_one_key_at_both_at_once_makes_one_job(a, b):
    headers, body = {"Idempotency-Key": "both"}, {"kind": "outcome", "parameters": {"how": "user-error"}}
    with ThreadPoolExecutor(16) as pool:
        jobs = set(pool.map(lambda n: submit((a, b)[n % 2].http, headers, **body), range(32)))
    assert len(jobs) == 1
    other = b.http.post("/v1/jobs", headers=headers, json={**body, "priority": "low"})
    assert other.status_code == 422


def test_a_version_of_one_is_served_and_becomes_the_default_at_the_other(a, b):
    dataset = upload(a.http)
    job = submit(a.http, kind="train", model="test-steps", dataset=dataset, parameters={"epochs": 1, "version": "one"})
    record = ended(b.http, job)
    assert record["status"] == "succeeded", record
    body = {"model": "test-steps", "input": [[1.0, 2.0]]}
    for gateway in (a, b):
        answer = gateway.http.post("/v1/classifications", json={**body, "model": "test-steps@one"})
        assert answer.status_code == 200, answer.text
        assert gateway.http.post("/v1/classifications", json=body).status_code == 404, "it has no default yet"
    assert a.http.put("/v1/models/test-steps/default", json={"version": "one"}).status_code == 200
    assert a.http.post("/v1/classifications", json=body).status_code == 200
    time.sleep(FRESH_S)
    assert b.http.post("/v1/classifications", json=body).json()["model"] == "test-steps@one"
    assert b.http.delete("/v1/models/test-steps@one").status_code == 204
    time.sleep(FRESH_S)
    assert a.http.post("/v1/classifications", json=body).status_code == 404


def test_keys_hold_and_are_revoked_at_both(fleet, a, b):
    keys = KeyStore(BlobStore(fleet.store_url))
    key, secret = keys.create("both", ["infer"])
    time.sleep(REFRESH_S)
    clients = [gateway.client(secret) for gateway in (a, b)]
    assert [client.get("/v1/models").status_code for client in clients] == [200, 200]
    keys.revoke(key.id)
    time.sleep(REFRESH_S)
    assert [client.get("/v1/models").status_code for client in clients] == [401, 401]


def test_a_killed_gateway_takes_nothing_with_it(fleet, b):
    victim = fleet.gateway()
    job = submit(victim.http, kind="steps", parameters={"steps": 60, "pause": 0.05})
    followed, half = [], threading.Event()

    def body():
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="half.csv"\r\n\r\na,b,label\n1,2,p\n'
        half.set()
        time.sleep(30)
        yield b"--x--"

    def send():
        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        with pytest.raises(httpx.HTTPError):
            victim.client(KEY).post("/v1/datasets", content=body(), headers=headers)

    follower = threading.Thread(target=lambda: followed.extend(events(victim.http, job)))
    sender = threading.Thread(target=send, daemon=True)
    before = b.http.get("/v1/datasets").json()["data"]
    follower.start()
    sender.start()
    assert half.wait(10)
    fleet.until(lambda: len(events(b.http, job, most=12)) == 12, "the job runs")
    victim.kill()
    follower.join(10)
    assert followed
    assert followed[-1][1] != "status" or followed[-1][2]["status"] == "running", "it was cut off in the middle"
    rest = events(b.http, job, after=followed[-1][0])
    assert rest[-1][1:] == ("status", {"status": "succeeded"})
    steps = [data["step"] for _, name, data in followed + rest if name == "metric"]
    assert steps == list(range(60))
    assert b.http.get("/v1/datasets").json()["data"] == before, "half an upload is nothing"


def test_more_readers_wait_than_the_library_has_connections_for(b):
    job = submit(b.http, kind="steps", parameters={"steps": 2000, "pause": 0.05})
    limits = httpx.Limits(max_connections=150, max_keepalive_connections=150)
    headers = {"Authorization": f"Bearer {KEY}"}
    with (
        httpx.Client(base_url=b.url, headers=headers, timeout=60, limits=limits) as http,
        ThreadPoolExecutor(150) as pool,
    ):
        answers = list(pool.map(lambda _: http.get(f"/v1/jobs/{job}?wait=3").status_code, range(150)))
    b.http.delete(f"/v1/jobs/{job}")
    assert Counter(answers) == {200: 150}


def test_one_rate_however_many_gateways(fleet):
    gateways = [fleet.gateway(api_keys="dn_limited", requests_per_minute=20) for _ in range(2)]
    clients = [gateway.client("dn_limited") for gateway in gateways]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: clients[n % 2].get("/v1/models"), range(60)))
    allowed = Counter(n % 2 for n, answer in enumerate(answers) if answer.status_code == 200)
    refused = [answer for answer in answers if answer.status_code == 429]
    assert 20 <= allowed.total() <= 24, "20, and what came back meanwhile at one in three seconds"
    assert len(refused) == 60 - allowed.total()
    assert min(allowed[0], allowed[1]) > 2
    assert all(1 <= int(answer.headers["retry-after"]) <= 3 for answer in refused)
    assert {answer.headers["ratelimit-remaining"] for answer in refused} == {"0"}
