"""A user's own version: trained by a job, served without a restart, made the default, undone, deleted."""

from pathlib import Path

import numpy as np
import pytest

from tests.contract.examples import png
from tests.contract.waiting import ended

DATA = Path(__file__).parents[1] / "data"
pytestmark = pytest.mark.timeout(240)


def upload(client, name):
    with (DATA / name).open("rb") as file:
        answer = client.post("/v1/datasets", files={"file": (name, file)})
    assert answer.status_code in (200, 201), answer.text
    return answer.json()["id"]


def train(client, model, dataset, **parameters):
    job = client.post("/v1/jobs", json={"kind": "train", "model": model, "dataset": dataset, "parameters": parameters})
    assert job.status_code == 202, job.text
    record = ended(client, job.json()["id"], seconds=200)
    assert record["status"] == "succeeded", record
    return client.get(f"/v1/jobs/{record['id']}/result").json()


@pytest.fixture(scope="module")
def encoder(client, worker):
    dataset = upload(client, "fashion-mnist-600.npz")
    return train(client, "align-uniform", dataset, epochs=1, batch_size=64, version="mine")["model"]


@pytest.fixture(scope="module")
def picture():
    with np.load(DATA / "fashion-mnist-600.npz", allow_pickle=False) as archive:
        pixels = archive["images"][0]
    return png(pixels[:, :, None] if pixels.ndim == 2 else pixels)


def embed(client, model, picture):
    answer = client.post("/v1/embeddings", json={"model": model, "input": picture})
    assert answer.status_code == 200, answer.text
    return answer.json()["model"], np.array(answer.json()["data"][0]["embedding"])


def test_it_is_served_beside_the_shipped_one(client, encoder, picture):
    assert encoder == "align-uniform@mine"
    model, mine = embed(client, encoder, picture)
    assert model == encoder
    shipped, theirs = embed(client, "align-uniform", picture)
    assert shipped == "align-uniform@1"
    assert mine.shape != theirs.shape or not np.allclose(mine, theirs)
    listed = {item["id"]: item for item in client.get("/v1/models").json()["data"]}
    assert listed[encoder]["owned_by"].startswith("env_")
    assert not listed[encoder]["default"]


def test_the_default_can_be_changed_and_undone(client, encoder, picture):
    changed = client.put("/v1/models/align-uniform/default", json={"version": "mine"})
    assert changed.status_code == 200, changed.text
    assert changed.json()["default"]
    try:
        assert embed(client, "align-uniform", picture)[0] == encoder
    finally:
        assert client.put("/v1/models/align-uniform/default", json={"version": "1"}).status_code == 200
    assert embed(client, "align-uniform", picture)[0] == "align-uniform@1"
    assert client.put("/v1/models/align-uniform/default", json={"version": "none"}).status_code == 404


def test_other_keys_neither_see_nor_use_it(gateway, encoder, picture):
    keys = gateway.app.state.services.keys
    key, secret = keys.create("a stranger", ["infer"])
    gateway.app.state.authenticator._refreshed = float("-inf")
    try:
        with gateway.client(key=secret) as stranger:
            assert stranger.post("/v1/embeddings", json={"model": encoder, "input": picture}).status_code == 404
            assert encoder not in {item["id"] for item in stranger.get("/v1/models").json()["data"]}
            assert stranger.get(f"/v2/models/{encoder}").status_code == 404
    finally:
        keys.revoke(key.id)


def test_a_classifier_of_vectors_keeps_the_users_names(client, worker):
    dataset = upload(client, "digits-8x8-600.csv")
    result = train(client, "aum", dataset, epochs=4, version="vectors")
    sample = client.get(f"/v1/datasets/{dataset}/samples", params={"limit": 1}).json()["data"][0]
    body = {"model": result["model"], "input": {"type": "sample", "dataset": dataset, "index": 0}, "top_k": 3}
    labels = client.post("/v1/classifications", json=body).json()["data"][0]["labels"]
    assert len(labels) == 3
    assert labels[0]["label"] == str(sample["label"])
    assert labels[0]["score"] > 0.5


def test_deleting(client, worker, picture):
    dataset = upload(client, "fashion-mnist-600.npz")
    model = train(client, "align-uniform", dataset, epochs=1, batch_size=64, version="gone")["model"]
    embed(client, model, picture)
    assert client.delete(f"/v1/models/{model}").status_code == 204
    assert client.post("/v1/embeddings", json={"model": model, "input": picture}).status_code == 404
    assert client.delete(f"/v1/models/{model}").status_code == 404
    assert client.delete("/v1/models/align-uniform@1").status_code == 409
    assert client.delete("/v1/models/align-uniform").status_code == 422
