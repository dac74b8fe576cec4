"""Jobs over HTTP: a method of a temporary folder offers small real jobs, run by a real worker on a real Valkey."""

import json
import os
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

import httpx
import pytest

from service.settings import Settings
from tests.contract.conftest import KEY, free_port, serve
from tests.contract.test_datasets import DIGITS, FASHION, problem, upload
from workers.valkey import EmbeddedValkey

ROOT = Path(__file__).parents[2]
CARD = """
slug = "counting"
title = "Counting"
capability = "embed"
description = "Counts"
use_when = "something is to be counted"
limits = "none"
licence = "Apache-2.0"
input = "nothing"
output = "numbers"
[paper]
title = "t"
authors = "a"
venue = "v"
url = "https://example.org"
[[jobs]]
kind = "count"
title = "Count"
parameters = "Count"
run = "counting:run"
dataset = "optional"
inputs = ["image"]
page = "rows"
filters = { class = "label", odd = "odd" }
"""
SCHEMA = """
from pydantic import BaseModel, ConfigDict, Field

class Params(BaseModel):
    pass

class Config(BaseModel):
    pass

class Count(BaseModel):
    model_config = ConfigDict(extra="forbid")
    steps: int = Field(default=5, ge=1)
    seconds: float = Field(default=0.0, ge=0)
    fail: str = ""
    other: str | None = None
"""
COUNTING = """
import time
from models.core.inputs import InputError

def run(job, parameters):
    rows = []
    for step in range(parameters.steps):
        job.progress(step / parameters.steps, "counting", f"step {step}")
        job.metric("count", step, step)
        time.sleep(parameters.seconds)
        rows.append({"index": step, "label": "uv"[step % 2], "odd": step % 2 == 1})
    if parameters.fail == "input":
        raise InputError("the data does not fit")
    if parameters.fail == "bug":
        raise KeyError("a secret of ours")
    job.artifact("rows.txt", "text/plain").write_text("0123456789")
    job.artifact("report.html", "text/html").write_text("<h1>rows</h1>")
    return {"object": "count", "rows": rows, "total": len(rows)}
"""


@pytest.fixture(scope="module")
def methods(tmp_path_factory):
    folder = tmp_path_factory.mktemp("methods") / "counting"
    folder.mkdir()
    for name, text in {"card.toml": CARD, "schema.py": SCHEMA, "counting.py": COUNTING}.items():
        (folder / name).write_text(text)
    return folder.parent


def start(tmp_path_factory, methods, **options):
    """A gateway with its own queue; yields it and the Valkey."""
    home = tmp_path_factory.mktemp("jobs")
    valkey = EmbeddedValkey(home)
    settings = Settings(
        home=home,
        port=free_port(),
        redis_url=valkey.start(),
        backend="in-process",
        api_keys=KEY,
        methods_path=str(methods),
        **options,
    )
    for gateway in serve(settings):
        yield gateway, valkey
    valkey.stop()


@pytest.fixture(scope="module")
def stack(tmp_path_factory, methods):
    """With a worker."""
    for gateway, _ in start(tmp_path_factory, methods):
        environment = os.environ | {
            "DEEPNIGHT_HOME": str(gateway.settings.home),
            "DEEPNIGHT_REDIS_URL": gateway.settings.redis_url,
            "DEEPNIGHT_METHODS_PATH": str(methods),
            "DEEPNIGHT_DRAIN_S": "1",
        }
        worker = subprocess.Popen([sys.executable, "-m", "workers"], env=environment, cwd=ROOT)
        yield gateway
        worker.terminate()
        worker.wait(20)


@pytest.fixture(scope="module")
def still(tmp_path_factory, methods):
    """Without a worker: jobs stay queued."""
    for gateway, _ in start(tmp_path_factory, methods, concurrent_jobs=3):
        yield gateway


@pytest.fixture(scope="module")
def http(stack):
    with stack.client() as client:
        yield client


@pytest.fixture
def queued(still):
    """A client of the gateway without a worker; its jobs are cancelled afterwards."""
    with still.client() as client:
        yield client
        for job in client.get("/v1/jobs", params={"status": "queued", "limit": 1000}).json()["data"]:
            client.delete(f"/v1/jobs/{job['id']}")


def submit(client, headers=None, **fields):
    answer = client.post("/v1/jobs", json={"kind": "count", **fields}, headers=headers or {})
    assert answer.status_code == 202, answer.text
    return answer.json()


def finish(client, job, seconds=40):
    """The job when it has ended, by long polls."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        job = client.get(f"/v1/jobs/{job['id']}", params={"wait": 10}).json()
        if job["status"] not in ("queued", "running"):
            return job
    raise TimeoutError(job)


@pytest.fixture(scope="module")
def done(http):
    return finish(http, submit(http, parameters={"steps": 25}, labels={"note": "mine"}, seed=7))


def read_events(lines):
    """Server-sent events as ``(id, event, data)``, comments as None."""
    event = {}
    for line in lines:
        if line.startswith(":"):
            yield None
        elif line:
            name, _, value = line.partition(": ")
            event[name] = value
        elif "data" in event:
            yield event["id"], event["event"], json.loads(event["data"])
            event = {}
        else:
            event = {}


def test_a_job_from_submission_to_result(http, done):
    assert (done["object"], done["kind"], done["status"], done["attempts"]) == ("job", "count", "succeeded", 1)
    assert (done["seed"], done["labels"], done["priority"]) == (7, {"note": "mine"}, "normal")
    assert done["parameters"] == {"steps": 25, "seconds": 0.0, "fail": "", "other": None}
    assert done["progress"]["fraction"] == 1
    assert done["created_at"] <= done["started_at"] <= done["finished_at"]
    assert done["error"] is None
    result = http.get(done["result_url"]).json()
    assert (result["object"], result["total"], len(result["rows"]), result["has_more"]) == ("count", 25, 25, False)


def test_the_answer_to_a_submission(http):
    answer = http.post("/v1/jobs", json={"kind": "count"})
    assert answer.status_code == 202
    assert answer.headers["location"] == f"/v1/jobs/{answer.json()['id']}"
    assert int(answer.headers["retry-after"]) > 0


def test_results_are_paged_and_filtered_as_the_card_says(http, done):
    def rows(**query):
        page = http.get(done["result_url"], params=query).json()
        return [row["index"] for row in page["rows"]], page["has_more"]

    assert rows(offset=20, limit=3) == ([20, 21, 22], True)
    assert rows(offset=20, limit=5) == ([20, 21, 22, 23, 24], False)
    assert rows(offset=99) == ([], False)
    assert rows(**{"class": "v"}, limit=3) == ([1, 3, 5], True)
    assert rows(odd="false", offset=11) == ([22, 24], False)
    assert rows(odd="true", **{"class": "u"}) == ([], False)
    wrong = [{"offset": "-1"}, {"limit": "0"}, {"limit": "1001"}, {"limit": "x"}, {"sort": "1"}]
    for query in wrong:
        problem(http.get(done["result_url"], params=query), 422, *query)


def test_artifacts_with_ranges(http, done):
    files = {a["name"]: a for a in done["artifacts"]}
    assert {"rows.txt", "report.html"} <= files.keys()
    answer = http.get(files["rows.txt"]["url"], headers={"Range": "bytes=2-4"})
    assert (answer.status_code, answer.text) == (206, "234")
    assert answer.headers["etag"] == f'"{files["rows.txt"]["sha256"]}"'
    assert http.get(files["rows.txt"]["url"], headers={"If-None-Match": answer.headers["etag"]}).status_code == 304
    page = http.get(files["report.html"]["url"])
    assert page.headers["content-disposition"].startswith("inline")
    assert "sandbox" in page.headers["content-security-policy"]
    problem(http.get(f"/v1/jobs/{done['id']}/artifacts/none.txt"), 404)
    problem(http.get(f"/v1/jobs/{done['id']}/artifacts/..%2F..%2Fkeys.json"), 404)


def test_failures_are_the_results_problem(http):
    job = finish(http, submit(http, parameters={"fail": "input"}))
    assert (job["status"], job["attempts"], job["result_url"]) == ("failed", 1, None)
    assert "does not fit" in problem(http.get(f"/v1/jobs/{job['id']}/result"), 422)["detail"]


def test_tracebacks_are_for_administrators(http, stack):
    keys = stack.app.state.services.keys
    key, secret = keys.create("user", ["jobs"])
    stack.app.state.authenticator._refreshed = float("-inf")
    try:
        with stack.client(key=secret) as user:
            job = finish(user, submit(user, parameters={"fail": "bug"}))
            assert job["traceback"] is None
            assert "secret" not in json.dumps(job["error"])
            problem(user.get(f"/v1/jobs/{job['id']}/result"), 409)
        assert "a secret of ours" in http.get(f"/v1/jobs/{job['id']}").json()["traceback"]
    finally:
        keys.revoke(key.id)


def test_events_from_the_beginning_and_resumed(http, done):
    with http.stream("GET", f"/v1/jobs/{done['id']}/events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        events = [e for e in read_events(answer.iter_lines()) if e]
    assert [data["value"] for _, event, data in events if event == "metric"] == list(range(25))
    assert events[-1][1:] == ("status", events[-1][2])
    assert events[-1][2]["status"] == "succeeded"
    assert len({event[0] for event in events}) == len(events)
    for cut in (0, len(events) // 2, len(events) - 2):
        resume = {"Last-Event-ID": events[cut][0]}
        with http.stream("GET", f"/v1/jobs/{done['id']}/events", headers=resume) as answer:
            assert [e for e in read_events(answer.iter_lines()) if e] == events[cut + 1 :]
    for wrong in ("x", "1", "1-", "-1-1", "1-1;"):
        problem(http.get(f"/v1/jobs/{done['id']}/events", headers={"Last-Event-ID": wrong}), 400, "Last-Event-ID")


def test_events_arrive_while_the_job_runs_and_a_cancel_ends_them(http):
    job = submit(http, parameters={"steps": 1000, "seconds": 0.05})
    with http.stream("GET", f"/v1/jobs/{job['id']}/events") as answer:
        events = read_events(answer.iter_lines())
        while (event := next(events)) is None or event[1] != "metric":
            pass
        started = time.monotonic()
        cancelled = http.post(f"/v1/jobs/{job['id']}/cancel")
        assert cancelled.status_code == 202
        last = [e for e in events if e][-1]
    assert last[2]["status"] == "cancelled"
    assert time.monotonic() - started < 5
    assert finish(http, job)["status"] == "cancelled"
    assert http.delete(f"/v1/jobs/{job['id']}").status_code == 200
    problem(http.get(f"/v1/jobs/{job['id']}/result"), 409)


def test_readers_that_leave_are_closed_and_a_key_has_so_many(still, queued):
    job = submit(queued)
    url = f"{still.url}/v1/jobs/{job['id']}/events"
    streams = [httpx.Client(headers={"Authorization": f"Bearer {KEY}"}, timeout=10) for _ in range(33)]
    opened = []
    for client in streams[:32]:
        context = client.stream("GET", url)
        lines = context.__enter__().iter_lines()
        next(lines)
        opened.append((context, lines))  # httpx closes a stream whose iterator is dropped
    refused = streams[32].get(url)
    assert problem(refused, 429)["detail"]
    assert "retry-after" in refused.headers
    assert sum(still.app.state.event_streams._open.values()) == 32
    for context, _ in opened:
        context.__exit__(None, None, None)
    for client in streams:
        client.close()
    counts = still.app.state.event_streams._open
    deadline = time.monotonic() + 5
    while counts:
        assert time.monotonic() < deadline, counts
        time.sleep(0.02)


def test_a_silent_stream_sends_keep_alive_comments(queued, monkeypatch):
    monkeypatch.setattr("workers.client.KEEP_ALIVE_S", 0.2)
    job = submit(queued)
    with queued.stream("GET", f"/v1/jobs/{job['id']}/events") as answer:
        events = read_events(answer.iter_lines())
        started = time.monotonic()
        while next(events) is not None:
            pass
        assert next(events) is None
        assert 0.2 < time.monotonic() - started < 3


def test_long_polls_wait_for_the_end_and_no_longer(still, queued):
    job = submit(queued)
    started = time.monotonic()
    assert queued.get(f"/v1/jobs/{job['id']}", params={"wait": 1}).json()["status"] == "queued"
    assert 0.9 < time.monotonic() - started < 4
    threading.Timer(0.5, lambda: still.client().delete(f"/v1/jobs/{job['id']}")).start()
    started = time.monotonic()
    assert queued.get(f"/v1/jobs/{job['id']}", params={"wait": 20}).json()["status"] == "cancelled"
    assert time.monotonic() - started < 5
    problem(queued.get(f"/v1/jobs/{job['id']}", params={"wait": 61}), 422, "wait")


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"kind": "nothing"}, 422, "/kind"),
        ({"kind": "count", "parameters": {"steps": 0}}, 422, "/parameters/steps"),
        ({"kind": "count", "parameters": {"stepz": 1}}, 422, "/parameters/stepz"),
        ({"kind": "count", "dataset": "ds_" + "0" * 32}, 404, "/dataset"),
        ({"kind": "count", "parameters": {"other": "ds_" + "0" * 32}}, 404, "/parameters/other"),
        ({"kind": "count", "model": "otdd"}, 422, "/model"),
        ({"kind": "evaluate", "model": "no-such"}, 404, "/model"),
        ({"kind": "train", "model": "no-such", "dataset": None}, 404, "/model"),
        ({"kind": "mislabeled-detection"}, 422, "/dataset"),
        ({"kind": "count", "priority": "urgent"}, 422, "/priority"),
        ({"kind": "count", "seed": -1}, 422, "/seed"),
        ({"kind": "count", "colour": 1}, 422, "/colour"),
        ({}, 422, "/kind"),
    ],
)
def test_wrong_jobs_are_refused_before_they_are_queued(queued, body, status, field):
    problem(queued.post("/v1/jobs", json=body), status, field)
    assert queued.get("/v1/jobs", params={"status": "queued"}).json()["data"] == []


def test_data_of_the_wrong_kind_is_refused_with_the_reason(queued):
    vectors = upload(queued, DIGITS).json()["id"]
    document = problem(queued.post("/v1/jobs", json={"kind": "count", "dataset": vectors}), 422, "/dataset")
    assert "vectors" in document["detail"]


def test_a_data_set_that_a_job_uses_stays(queued):
    pictures = upload(queued, FASHION).json()["id"]
    job = submit(queued, dataset=pictures)
    problem(queued.delete(f"/v1/datasets/{pictures}"), 409)
    queued.delete(f"/v1/jobs/{job['id']}")
    assert queued.delete(f"/v1/datasets/{pictures}").status_code == 204


def test_the_same_key_is_the_same_job(queued):
    key = {"Idempotency-Key": uuid.uuid4().hex}
    first = submit(queued, key, parameters={"steps": 3})
    assert submit(queued, key, parameters={"steps": 3})["id"] == first["id"]
    other = queued.post("/v1/jobs", json={"kind": "count", "parameters": {"steps": 4}}, headers=key)
    problem(other, 422, "Idempotency-Key")
    assert submit(queued, {"Idempotency-Key": uuid.uuid4().hex})["id"] != first["id"]
    for wrong in ("", "x" * 256):
        headers = {"Idempotency-Key": wrong}
        problem(queued.post("/v1/jobs", json={"kind": "count"}, headers=headers), 400, "Idempotency-Key")
    queued.delete(f"/v1/jobs/{first['id']}")
    again = queued.post("/v1/jobs", json={"kind": "count", "parameters": {"steps": 3}}, headers=key)
    assert (again.status_code, again.json()["status"]) == (200, "cancelled")


def test_a_key_has_so_many_open_jobs(queued):
    jobs = [submit(queued) for _ in range(3)]
    refused = queued.post("/v1/jobs", json={"kind": "count"})
    problem(refused, 429)
    assert int(refused.headers["retry-after"]) > 0
    queued.delete(f"/v1/jobs/{jobs[0]['id']}")
    submit(queued)


def test_lists_are_filtered_and_go_on_after_a_cursor(queued):
    jobs = [submit(queued)["id"] for _ in range(3)]
    page = queued.get("/v1/jobs", params={"limit": 2, "status": "queued", "kind": "count"}).json()
    assert [job["id"] for job in page["data"]] == [jobs[2], jobs[1]]
    assert page["has_more"]
    page = queued.get("/v1/jobs", params={"after": jobs[1], "status": "queued"}).json()
    assert [job["id"] for job in page["data"]] == [jobs[0]]
    assert not page["has_more"]
    assert queued.get("/v1/jobs", params={"kind": "train"}).json()["data"] == []
    problem(queued.get("/v1/jobs", params={"after": "job_none"}), 422, "after")
    problem(queued.get("/v1/jobs", params={"status": "lost"}), 422, "status")


def test_other_keys_neither_see_nor_touch(still, queued):
    keys = still.app.state.services.keys
    key, secret = keys.create("another", ["jobs", "data"])
    still.app.state.authenticator._refreshed = float("-inf")
    try:
        job, pictures = submit(queued), upload(queued, FASHION).json()["id"]
        url = f"/v1/jobs/{job['id']}"
        with still.client(key=secret) as other:
            assert other.get("/v1/jobs").json()["data"] == []
            for method, path in [
                ("GET", url), ("GET", f"{url}/events"), ("GET", f"{url}/result"), ("GET", f"{url}/artifacts/x"),
                ("DELETE", url), ("POST", f"{url}/cancel"),
            ]:  # fmt: skip
                problem(other.request(method, path), 404)
            problem(other.post("/v1/jobs", json={"kind": "count", "dataset": pictures}), 404, "/dataset")
        assert queued.get(url).json()["status"] == "queued"
    finally:
        keys.revoke(key.id)


def test_without_its_queue_the_gateway_says_so_and_recovers(tmp_path_factory, methods):
    for gateway, valkey in start(tmp_path_factory, methods):
        with gateway.client() as client:
            job = submit(client)
            dataset = upload(client, DIGITS).json()["id"]
            valkey.stop()
            for method, path in [
                ("POST", "/v1/jobs"), ("GET", "/v1/jobs"), ("GET", f"/v1/jobs/{job['id']}"),
                ("GET", f"/v1/jobs/{job['id']}/events"), ("DELETE", f"/v1/jobs/{job['id']}"),
                ("DELETE", f"/v1/datasets/{dataset}"),
            ]:  # fmt: skip
                answer = client.request(method, path, json={"kind": "count"} if path == "/v1/jobs" else None)
                problem(answer, 503)
                assert int(answer.headers["retry-after"]) > 0
            assert client.get(f"/v1/datasets/{dataset}").status_code == 200
            again = EmbeddedValkey(gateway.settings.home)
            try:
                assert again.start() == gateway.settings.redis_url
                assert client.get(f"/v1/jobs/{job['id']}").json()["status"] == "queued"
                assert client.post("/v1/jobs", json={"kind": "count"}).status_code == 202
            finally:
                again.stop()
