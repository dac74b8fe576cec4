"""The blob store on a real S3 server: ``moto_server`` from an environment of its own (``pipx install 'moto[server]'``).

Its dependencies do not go together with those of the service, so it is run as a program; without it this is skipped.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import pytest
import torch

from models.core.checkpoint import Checkpoint, CheckpointConfig
from models.core.datasets import DatasetStore
from models.core.inputs import VectorSpec
from models.core.registry import Registry
from models.core.store import BlobStore
from models.core.versions import Versions
from tests.unit.workers.stack import Stack
from workers.pages import INDEX, ROWS, read_page, split_pages

SERVER = os.environ.get("DEEPNIGHT_TEST_S3_SERVER") or shutil.which("moto_server")
pytestmark = pytest.mark.skipif(SERVER is None, reason="moto_server is not installed")


@pytest.fixture(scope="module")
def server():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([SERVER, "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    for _ in range(200):
        try:
            urllib.request.urlopen(url, timeout=1).close()
            break
        except OSError:
            time.sleep(0.05)
    urllib.request.urlopen(urllib.request.Request(f"{url}/deepnight", method="PUT"), timeout=5).close()
    yield url
    process.terminate()
    process.wait()


@pytest.fixture
def url(server, monkeypatch, request):
    for name, value in {
        "ENDPOINT_URL": server, "ACCESS_KEY_ID": "key", "SECRET_ACCESS_KEY": "secret", "REGION": "us-east-1"
    }.items():  # fmt: skip
        monkeypatch.setenv(f"AWS_{name}", value)
    return f"s3://deepnight/{request.node.name}"


def _send(url: str, method: str, data: bytes = b"") -> tuple[bytes, str | None]:
    request = urllib.request.Request(url, data, {"Content-Type": "application/octet-stream"}, method=method)
    with urllib.request.urlopen(request, timeout=5) as answer:
        return answer.read(), answer.headers.get("ETag")


def _complete_upload(url: str) -> bytes:
    """What the server answers to the end of an upload in one part."""
    started = re.search(rb"<UploadId>(.*)</UploadId>", _send(f"{url}?uploads", "POST")[0])
    assert started
    upload = started[1].decode()
    _, tag = _send(f"{url}?partNumber=1&uploadId={upload}", "PUT", b"x")
    part = f"<Part><PartNumber>1</PartNumber><ETag>{tag}</ETag></Part>"
    end = f"<CompleteMultipartUpload>{part}</CompleteMultipartUpload>".encode()
    return _send(f"{url}?uploadId={upload}", "POST", end)[0]


def test_keys_appear_whole_or_not_at_all(url):
    store = BlobStore(url)
    store.put("a/b/c.json", b"one")
    store.put("a/b/c.json", b"two")
    with pytest.raises(RuntimeError), store.write("a/b/c.json") as file:
        file.write(b"half")
        raise RuntimeError
    with pytest.raises(RuntimeError), store.write("a/new") as file:
        file.write(b"half")
        raise RuntimeError
    assert (store.get("a/b/c.json"), store.size("a/b/c.json")) == (b"two", 3)
    assert (store.exists("a/b/c.json"), store.exists("a/new")) == (True, False)
    store.put("a/d", os.urandom(1 << 20))
    assert (store.keys("a"), store.folders("a"), store.local_path("a")) == (["a/b/c.json", "a/d"], ["b"], None)
    with store.open("a/d") as file:
        file.seek((1 << 20) - 5)
        assert len(file.read()) == 5
    for missing in (store.get, store.size, store.open):
        with pytest.raises(FileNotFoundError):
            missing("a/none")
    store.delete("a/d")
    store.delete("a/b")
    store.delete("a/none")
    assert (store.keys("a"), store.folders("none")) == ([], [])
    assert BlobStore(f"{url}-other").keys("a") == []


def test_an_object_of_several_parts(url, server):
    if b"<CompleteMultipartUploadResult" not in _complete_upload(f"{server}/deepnight/probe"):
        pytest.skip("this moto_server misnames its answer to a completed upload, as 5.2.1 does")
    store, data = BlobStore(url), os.urandom(11 << 20)
    store.put("a", data)
    assert (store.size("a"), store.get("a") == data) == (11 << 20, True)


def test_a_missing_bucket_is_told(url):
    with pytest.raises(OSError, match="NO_SUCH_BUCKET"):
        BlobStore("s3://no-such-bucket/x").put("a", b"b")


def test_data_sets_versions_and_pages(url, tmp_path):
    store = BlobStore(url)
    data = tmp_path / "data.csv"
    data.write_text("a,b,label\n" + "".join(f"{n},{n % 3},{'pq'[n % 2]}\n" for n in range(40)))
    datasets = DatasetStore(store, tmp_path / "cache")
    record, new = datasets.add("ann", data, filename="data.csv")
    assert new
    elsewhere = DatasetStore(BlobStore(url), tmp_path / "elsewhere")
    assert len(elsewhere.load("ann", record.id)) == 40
    assert elsewhere.file("ann", record.id)[0].read_bytes() == data.read_bytes()

    Checkpoint.write(
        tmp_path / "mine", CheckpointConfig(method="otdd", input=VectorSpec(size=3)), {"w": torch.arange(4.0)}
    )
    versions = Versions(Registry(), store, tmp_path / "versions")
    versions.publish("otdd", "mine", tmp_path / "mine", owner="ann")
    opened = versions.checkpoint(versions.resolve("otdd@mine"))
    assert opened.tensors()["w"].tolist() == [0, 1, 2, 3]
    versions.delete(versions.resolve("otdd@mine"))
    assert [version.name for version in versions.list("otdd") if not version.shipped] == []

    kind = Registry().job_kinds()["mislabeled-detection"][1]
    rows = [{"index": n, "label": "ab"[n % 2], "suspect": n < 5} for n in range(100)]
    _, pages = split_pages({kind.page: rows}, kind)
    store.put(f"jobs/j/{ROWS}", pages.rows)
    store.put(f"jobs/j/{INDEX}", pages.index)
    assert read_page(store, "jobs/j", {"class": "b"}, 2, 1) == ([rows[5]], True)


def test_a_jobs_files_and_version(url, tmp_path):
    home = Path(tempfile.mkdtemp(prefix="s3-", dir="/tmp"))  # short, as the address of a Unix socket is
    stack = Stack(home, store_url=url)
    try:
        stack.start_worker()
        dataset = stack.vectors("ann")
        derive = stack.submit("derive", "ann", dataset=dataset.id, parameters={"note": "hello"})
        train = stack.submit("train", "ann", model="test-steps", dataset=dataset.id, parameters={"version": "far"})
        derived, trained = stack.wait(derive.id), stack.wait(train.id)
        assert (derived.status, trained.status) == ("succeeded", "succeeded"), (derived, trained)
        (artifact,) = derived.artifacts
        assert stack.store.get(artifact.key) == b"hello"
        made = json.loads(stack.store.get(derived.result_key))["dataset"]
        assert stack.datasets.load("ann", made).sha256
        versions = Versions(stack.registry, stack.store, tmp_path / "versions")
        assert versions.checkpoint(versions.resolve("test-steps@far")).tensors()
    finally:
        stack.close()
        shutil.rmtree(home)


def test_a_process_that_used_it_ends_cleanly(url):
    code = f"from models.core.store import BlobStore as S; s = S({url!r}); s.put('a', b'b'); s.get('a'); s.exists('c')"
    for _ in range(3):
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
