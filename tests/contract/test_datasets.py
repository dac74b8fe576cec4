"""Data sets over HTTP: every format, what is refused and how it is named, and that nothing is left behind."""

import base64
import io
import json
import os
import socket
import subprocess
import threading
import time
import uuid
import zipfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
from PIL import Image

from models.core.datasets import DatasetOptions, Limits
from models.core.datasets.ingest import IngestTask, run
from tests.contract.conftest import KEY

DATA = Path(__file__).parents[1] / "data"
FASHION = DATA / "fashion-mnist-600.npz"
DIGITS = DATA / "digits-8x8-600.csv"


def upload(client, content, filename="a.csv", **fields):
    """Bytes or a path; ``fields`` are further parts of the form."""
    if isinstance(content, Path):
        content, filename = content.read_bytes(), content.name
    return client.post("/v1/datasets", files={"file": (filename, content)}, data=fields)


def problem(answer, status, field=None):
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document = answer.json()
    if field is not None:
        assert [error["field"] for error in document["errors"]] == [field]
    return document


def is_parser(process):
    try:
        return "models.core.datasets.ingest" in process.cmdline()
    except psutil.NoSuchProcess:  # ended in between; a zombie is one, too
        return False


def leftovers(home):
    """Files of uploads that were not finished, and processes that parse."""
    found = [path for folder in ("cache/uploads", "store/.partial") for path in (home / folder).glob("*")]
    parsers = [p for p in psutil.Process().children(recursive=True) if is_parser(p)]
    return found + parsers


@pytest.fixture
def fresh(client):
    """A small data set that no other test has, deleted afterwards."""
    made = []

    def make(rows=30, **fields):
        tag = uuid.uuid4().int % 10**6
        text = "a,b,label\n" + "".join(f"{i},{tag},{'uv'[i % 2]}\n" for i in range(rows))
        answer = upload(client, text.encode(), **fields)
        assert answer.status_code == 201, answer.text
        made.append(answer.json()["id"])
        return answer.json()

    yield make
    for dataset_id in made:
        client.delete(f"/v1/datasets/{dataset_id}")


@pytest.mark.parametrize(
    ("name", "kind", "shape", "samples"),
    [
        ("fashion-mnist-600.npz", "images", [28, 28, 1], 600),
        ("fashion-mnist-600.zip", "images", [28, 28, 1], 600),
        ("fashion-mnist-600.parquet", "images", [28, 28, 1], 600),
        ("fashion-mnist-120.tar.gz", "images", [28, 28, 1], 120),
        ("digits-8x8-600.csv", "vectors", [64], 600),
        ("docstrings-300.jsonl", "text", None, 300),
    ],
)
def test_every_format_from_upload_to_deletion(client, name, kind, shape, samples):
    raw = (DATA / name).read_bytes()
    answer = upload(client, DATA / name, name="my data")
    assert answer.status_code == 201, answer.text
    made = answer.json()
    url = f"/v1/datasets/{made['id']}"
    assert answer.headers["location"] == url
    assert (made["object"], made["name"], made["kind"]) == ("dataset", "my data", kind)
    assert (made["shape"], made["samples"], made["bytes"]) == (shape, samples, len(raw))
    assert made["classes"] == len(made["class_names"])
    again = upload(client, DATA / name, name="another name")
    assert (again.status_code, again.json(), again.headers["location"]) == (200, made, url)
    assert client.get(url).json() == made
    assert made in client.get("/v1/datasets").json()["data"]
    assert client.get(f"{url}/content").content == raw
    assert client.delete(url).status_code == 204
    for method, path in [("GET", url), ("GET", f"{url}/samples"), ("GET", f"{url}/content"), ("DELETE", url)]:
        problem(client.request(method, path), 404)


def test_options_choose_the_columns_and_make_another_data_set(client, fresh):
    text = b"p,q,r,s\n1,2,u,x\n3,4,v,y\n" * 1
    plain = upload(client, text)
    chosen = upload(client, text, options=json.dumps({"features": ["q"], "label": "s"}))
    assert plain.status_code == chosen.status_code == 201
    assert plain.json()["id"] != chosen.json()["id"]
    assert (chosen.json()["shape"], chosen.json()["class_names"]) == ([1], ["x", "y"])
    assert chosen.json()["options"]["label"] == "s"


@pytest.mark.parametrize(
    ("fields", "status", "field"),
    [
        ({"options": "{"}, 400, "/options"),
        ({"options": '{"label": NaN}'}, 400, "/options"),
        ({"options": "[1]"}, 422, "/options"),
        ({"options": '{"lable": "x"}'}, 422, "/options/lable"),
        ({"options": '{"label": "nope"}'}, 422, "/options/label"),
        ({"options": '{"image": "a", "text": "b"}'}, 422, "/options"),
        ({"name": ""}, 422, "/name"),
        ({"name": "x" * 201}, 422, "/name"),
        ({"name": "a\nb"}, 422, "/name"),
        ({"title": "x"}, 422, "/title"),
    ],
)
def test_wrong_fields_are_named(client, gateway, fields, status, field):
    problem(upload(client, b"a,b\n1,2\n", **fields), status, field)
    assert leftovers(gateway.settings.home) == []


def test_forms_that_are_none(client, gateway):
    problem(client.post("/v1/datasets", json={"file": "x"}), 415, "Content-Type")
    problem(
        client.post("/v1/datasets", content=b"x", headers={"content-type": "multipart/form-data"}), 400, "Content-Type"
    )
    send = {"content-type": "multipart/form-data; boundary=xyz"}
    cut = b'--xyz\r\nContent-Disposition: form-data; name="file"; filename="a.csv"\r\n\r\na\n1'
    for body in (b"", b"hello", b"--xyz\r\nhello", cut):
        problem(client.post("/v1/datasets", content=body, headers=send), 400)
    problem(client.post("/v1/datasets", files={"name": (None, "x")}), 422, "/file")
    problem(client.post("/v1/datasets", files=[("file", ("a.csv", b"a\n1\n"))] * 2), 422, "/file")
    problem(client.post("/v1/datasets", files={"file": (None, b"a\n1\n")}), 422, "/file")
    problem(upload(client, b"a\n1\n", "a.xlsx"), 422, "/file")
    assert leftovers(gateway.settings.home) == []


@pytest.mark.parametrize(
    ("filename", "content", "reason"),
    [
        ("a.csv", b"a,b\n1,2\n3\n", "row 1: Expected 2 columns, got 1"),
        ("a.jsonl", b'{"a": 1}\n{"a": \n', "row 1: not JSON"),
        ("a.npz", b"PK\3\4 no", "not an npz"),
        ("a.parquet", b"PAR1", "Parquet"),
        ("a.zip", b"hello", "not a zip"),
        ("a.tar.gz", b"hello", "not a tar.gz"),
        ("a.csv", b"", "empty"),
    ],
)
def test_bad_files_say_which_row_and_leave_nothing(client, gateway, filename, content, reason):
    before = client.get("/v1/datasets", params={"limit": 1000}).json()["data"]
    document = problem(upload(client, content, filename), 422, "/file")
    assert reason in document["errors"][0]["detail"]
    assert client.get("/v1/datasets", params={"limit": 1000}).json()["data"] == before
    assert leftovers(gateway.settings.home) == []


def test_hostile_archives_are_refused_with_the_member(client, gateway, tmp_path):
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../../escaped/1.png", b"x")
    assert "'../../escaped/1.png'" in problem(upload(client, raw.getvalue(), "a.zip"), 422)["detail"]
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/bomb.png", b"\0" * (16 << 20))
    assert "'a/bomb.png'" in problem(upload(client, raw.getvalue(), "a.zip"), 422)["detail"]
    assert not list(gateway.settings.home.parent.rglob("escaped"))


def test_a_half_sent_upload_leaves_nothing(client, gateway):
    before = client.get("/v1/datasets", params={"limit": 1000}).json()["data"]
    uploads = gateway.settings.home / "cache" / "uploads"
    with socket.create_connection((gateway.settings.host, gateway.settings.port)) as connection:
        head = (
            f"POST /v1/datasets HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Length: 90000000\r\n"
            "Content-Type: multipart/form-data; boundary=xyz\r\n\r\n"
            '--xyz\r\nContent-Disposition: form-data; name="file"; filename="a.csv"\r\n\r\n'
        )
        connection.sendall(head.encode() + b"a,b\n" + b"1,2\n" * 1_000_000)
        deadline = time.monotonic() + 10
        while not list(uploads.glob("*")):
            assert time.monotonic() < deadline
            time.sleep(0.01)
    deadline = time.monotonic() + 10
    while leftovers(gateway.settings.home):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert client.get("/v1/datasets", params={"limit": 1000}).json()["data"] == before


def test_a_client_that_leaves_while_its_file_is_parsed_stops_the_parser(client, gateway):
    before = client.get("/v1/datasets", params={"limit": 1000}).json()["data"]
    rows = b"label," + b",".join(b"p%d" % i for i in range(300)) + b"\n"
    rows += (b"u," + b",".join([b"0.123456"] * 300) + b"\n") * 15_000
    with pytest.raises(httpx.ReadTimeout):
        client.post("/v1/datasets", files={"file": ("slow.csv", rows)}, timeout=httpx.Timeout(30, read=0.3))
    deadline = time.monotonic() + 10
    while leftovers(gateway.settings.home):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert client.get("/v1/datasets", params={"limit": 1000}).json()["data"] == before


def multipart(megabytes, chunk=b"x" * (1 << 20)):
    """A streamed form whose file is no npz."""
    yield b'--xyz\r\nContent-Disposition: form-data; name="file"; filename="a.npz"\r\n\r\n'
    for _ in range(megabytes):
        yield chunk
    yield b"\r\n--xyz--\r\n"


def test_memory_does_not_grow_with_the_file(client, gateway):
    process, peak, stop = psutil.Process(), [], threading.Event()

    def watch():
        while not stop.wait(0.01):
            peak.append(process.memory_info().rss)

    before = process.memory_info().rss
    watcher = threading.Thread(target=watch)
    watcher.start()
    send = {"content-type": "multipart/form-data; boundary=xyz"}
    answer = client.post("/v1/datasets", content=multipart(160), headers=send)
    stop.set()
    watcher.join()
    problem(answer, 422, "/file")
    assert max(peak) - before < 80 << 20
    assert leftovers(gateway.settings.home) == []


def test_too_large_files_are_cut_off(client, gateway):
    state = gateway.app.state
    services = state.services
    state.services = replace(services, settings=services.settings.model_copy(update={"max_upload_bytes": 1 << 20}))
    try:
        send = {"content-type": "multipart/form-data; boundary=xyz"}
        problem(client.post("/v1/datasets", content=multipart(2), headers=send), 413, "/file")
        assert upload(client, b"a\n1\n" * 1000).status_code in (201, 200)
    finally:
        state.services = services
    assert leftovers(gateway.settings.home) == []


def test_the_gateway_answers_while_a_large_file_is_parsed(client, gateway):
    rng = np.random.default_rng(0)
    rows = "".join(",".join(map(str, row)) + "\n" for row in rng.integers(0, 10**6, (12_000, 60)))
    text = (",".join(f"c{i}" for i in range(60)) + "\n" + rows).encode()
    answers, waits = [], []
    thread = threading.Thread(target=lambda: answers.append(upload(gateway.client(), text)))
    thread.start()
    with gateway.client() as other:
        while thread.is_alive():
            started = time.perf_counter()
            assert other.get("/healthz").status_code == 200
            waits.append(time.perf_counter() - started)
    assert answers[0].status_code == 201, answers[0].text
    assert len(waits) > 5
    assert np.percentile(waits, 90) < 0.1
    client.delete(answers[0].headers["location"])


def test_a_parser_that_dies_at_once_is_a_503_and_leaves_nothing(client, gateway, monkeypatch):
    pipe = subprocess.PIPE
    dead = partial(subprocess.Popen, ["false"], stdin=pipe, stdout=pipe, stderr=pipe)
    monkeypatch.setattr("service.ingesting._start", dead)
    answer = upload(client, b"a,b\n" + b"3,4\n" * 100)
    problem(answer, 503)
    assert int(answer.headers["retry-after"]) > 0
    assert leftovers(gateway.settings.home) == []


def test_full_disks_are_507_and_leave_nothing(client, gateway, monkeypatch):
    """A link to /dev/full gives the kernel's own error at the first write."""
    folder = gateway.settings.home / "cache" / "uploads"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "full").symlink_to("/dev/full")
    monkeypatch.setattr("service.uploads.uuid.uuid4", lambda: type("Name", (), {"hex": "full"}))
    answer = upload(client, b"a,b\n1,2\n" + b"1,2\n" * 100)
    problem(answer, 507)
    assert int(answer.headers["retry-after"]) > 0
    assert leftovers(gateway.settings.home) == []


def test_a_store_that_is_full_is_an_outcome_of_the_parser(tmp_path, monkeypatch):
    partial = tmp_path / "store" / ".partial"
    partial.mkdir(parents=True)
    (partial / "full").symlink_to("/dev/full")
    monkeypatch.setattr("models.core.store.uuid.uuid4", lambda: type("Name", (), {"hex": "full"}))
    task = IngestTask(
        store=str(tmp_path / "store"),
        cache=tmp_path / "cache",
        limits=Limits(),
        parent=os.getpid(),
        owner="ann",
        path=DIGITS,
        filename=DIGITS.name,
        options=DatasetOptions(),
    )
    assert run(task).outcome == "full"
    assert not [path for path in (tmp_path / "store").rglob("*") if path.is_file()]


def test_samples_show_pictures_vectors_and_texts(client):
    made = upload(client, FASHION).json()
    url = f"/v1/datasets/{made['id']}/samples"
    with np.load(FASHION) as archive:
        images, labels = archive["images"], archive["labels"]
    page = client.get(url, params={"offset": 590, "limit": 7}).json()
    assert (page["object"], page["has_more"], [s["index"] for s in page["data"]]) == (
        "list",
        True,
        list(range(590, 597)),
    )
    for sample in page["data"]:
        assert sample["label"] == made["class_names"][labels[sample["index"]]]
        picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(sample["image"]["data"]))))
        assert np.array_equal(picture, images[sample["index"]])
        assert "text" not in sample
    assert not client.get(url, params={"offset": 590, "limit": 10}).json()["has_more"]
    assert client.get(url, params={"offset": 600}).json()["data"] == []
    for query, field in [({"offset": -1}, "offset"), ({"limit": 0}, "limit"), ({"limit": 1001}, "limit")]:
        problem(client.get(url, params=query), 422, field)
    made = upload(client, DIGITS).json()
    sample = client.get(f"/v1/datasets/{made['id']}/samples", params={"limit": 1}).json()["data"][0]
    assert [f"{x:.0f}" for x in sample["vector"]] == DIGITS.read_text().splitlines()[1].split(",")[1:]
    made = upload(client, DATA / "docstrings-300.jsonl").json()
    sample = client.get(f"/v1/datasets/{made['id']}/samples", params={"limit": 1}).json()["data"][0]
    first = json.loads((DATA / "docstrings-300.jsonl").read_text().splitlines()[0])
    assert (sample["id"], sample["text"], sample["label"]) == (first["id"], first["text"], first["label"])


def test_large_pictures_are_shown_small_and_samples_outlive_the_cache(client, gateway):
    raw = io.BytesIO()
    np.savez(raw, x=np.random.default_rng(0).integers(0, 256, (2, 100, 400, 3), dtype=np.uint8))
    made = upload(client, raw.getvalue(), "large.npz").json()
    gateway.app.state.services.datasets._parsed.delete(made["id"])
    sample = client.get(f"/v1/datasets/{made['id']}/samples").json()["data"][1]
    assert (sample["image"]["width"], sample["image"]["height"]) == (400, 100)
    assert Image.open(io.BytesIO(base64.b64decode(sample["image"]["data"]))).size == (96, 24)
    assert sample["label"] is None


def test_content_in_ranges(client):
    raw = DIGITS.read_bytes()
    url = f"/v1/datasets/{upload(client, DIGITS).json()['id']}/content"
    whole = client.get(url)
    tag = whole.headers["etag"]
    assert whole.headers["accept-ranges"] == "bytes"
    assert whole.headers["content-length"] == str(len(raw))
    for asked, start, end in [
        ("bytes=0-9", 0, 10),
        ("bytes=100-", 100, len(raw)),
        ("bytes=-7", len(raw) - 7, len(raw)),
        (f"bytes=5-{10**9}", 5, len(raw)),
    ]:
        answer = client.get(url, headers={"Range": asked})
        assert answer.status_code == 206
        assert answer.content == raw[start:end]
        assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/{len(raw)}"
    outside = client.get(url, headers={"Range": f"bytes={len(raw)}-"})
    problem(outside, 416)
    assert outside.headers["content-range"] == f"bytes */{len(raw)}"
    for ignored in ("bytes=5-2", "bytes=a-b", "lines=1-2", "bytes=-"):
        assert client.get(url, headers={"Range": ignored}).status_code == 200
    assert client.get(url, headers={"If-None-Match": tag}).status_code == 304
    assert client.get(url, headers={"If-None-Match": f'"x", W/{tag}'}).status_code == 304
    assert client.get(url, headers={"If-None-Match": '"x"'}).status_code == 200
    assert client.get(url, headers={"Range": "bytes=0-9", "If-Range": tag}).status_code == 206
    assert client.get(url, headers={"Range": "bytes=0-9", "If-Range": '"x"'}).status_code == 200


def test_lists_go_on_after_a_cursor(client, fresh):
    made = [fresh(rows) for rows in (10, 11, 12)]
    first = client.get("/v1/datasets", params={"limit": 2}).json()
    assert [d["id"] for d in first["data"]] == [made[2]["id"], made[1]["id"]]
    assert first["has_more"]
    rest = client.get("/v1/datasets", params={"limit": 1000, "after": made[1]["id"]}).json()
    assert rest["data"][0]["id"] == made[0]["id"]
    assert not rest["has_more"]
    problem(client.get("/v1/datasets", params={"after": "ds_none"}), 422, "after")


def test_other_keys_neither_see_nor_touch(client, gateway, fresh):
    keys = gateway.app.state.services.keys
    key, secret = keys.create("another", ["data", "jobs"])
    gateway.app.state.authenticator._refreshed = float("-inf")
    try:
        mine = fresh()
        with gateway.client(key=secret) as other:
            assert other.get("/v1/datasets").json()["data"] == []
            url = f"/v1/datasets/{mine['id']}"
            for method, path in [("GET", url), ("GET", f"{url}/samples"), ("GET", f"{url}/content"), ("DELETE", url)]:
                problem(other.request(method, path), 404)
            theirs = upload(other, DIGITS).json()
            assert theirs["id"] != upload(client, DIGITS).json()["id"]
        assert client.get(f"/v1/datasets/{theirs['id']}").json() == theirs  # this key holds admin
    finally:
        keys.revoke(key.id)
