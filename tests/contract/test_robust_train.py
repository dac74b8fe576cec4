"""A job that publishes a version by itself: it is served when the job has succeeded, and a taken name is refused."""

from pathlib import Path

import pytest

from tests.contract.waiting import ended

DATA = Path(__file__).parents[1] / "data"
PARAMETERS = {"epochs": 2, "version": "stopped", "early_stopping": {"min_epochs": 1}}

pytestmark = [pytest.mark.usefixtures("worker"), pytest.mark.timeout(300)]


def test_the_stopped_version_is_served_and_its_name_is_taken(client):
    with (DATA / "fashion-mnist-600.npz").open("rb") as file:
        dataset = client.post("/v1/datasets", files={"file": ("pictures.npz", file)}).json()["id"]
    request = {"kind": "robust-train", "dataset": dataset, "parameters": PARAMETERS}
    jobs = [client.post("/v1/jobs", json=request).json()["id"] for _ in range(2)]
    first, second = (ended(client, job) for job in jobs)
    assert first["status"] == "succeeded", first
    result = client.get(f"/v1/jobs/{jobs[0]}/result").json()
    assert result["model"] == "early-stopping@stopped"
    versions = client.get("/v1/models/early-stopping").json()
    assert "stopped" in str(versions)
    pixels = [[0] * 28 for _ in range(28)]
    answer = client.post(
        "/v1/classifications", json={"model": result["model"], "input": [{"type": "array", "data": pixels}]}
    )
    assert answer.status_code == 200 and answer.json()["model"] == "early-stopping@stopped", answer.text
    assert second["status"] == "failed" and "there already" in str(second["error"])
