"""``deepnight jobs`` against the running service."""

import json
import os
import subprocess

import pytest

from tests.e2e.stack import DEEPNIGHT, ROOT

pytestmark = pytest.mark.stack
DISTANCE = {"model": "robust-ot", "a": {"points": [[0, 0], [1, 0]]}, "b": {"points": [[0, 1], [1, 1]]}}


@pytest.fixture
def jobs(stack):
    def run(*arguments):
        environment = {**os.environ, "DEEPNIGHT_URL": stack.base_url}
        return subprocess.run(
            [DEEPNIGHT, "jobs", *arguments], capture_output=True, text=True, env=environment, check=False, timeout=120
        )

    return run


def test_a_job_is_followed_to_its_end(api, jobs):
    job = api.post("/v1/distances", json=DISTANCE, headers={"Prefer": "respond-async"}).json()
    shown = jobs("show", job["id"], "--watch", "--json")
    assert shown.returncode == 0, shown.stderr
    assert json.loads(shown.stdout)["status"] == "succeeded"
    assert "100%" in jobs("show", job["id"]).stdout
    listed = json.loads(jobs("list", "--status", "succeeded", "--json").stdout)
    assert job["id"] in [each["id"] for each in listed]
    assert job["id"] in jobs("list").stdout


def test_a_job_is_cancelled(api, jobs):
    with (ROOT / "tests" / "data" / "fashion-mnist-600.npz").open("rb") as file:
        dataset = api.post("/v1/datasets", files={"file": ("slice.npz", file)}).json()["id"]
    body = {"kind": "mislabeled-detection", "dataset": dataset, "parameters": {"epochs": 300}}
    job = api.post("/v1/jobs", json=body).json()
    assert job["id"] in jobs("cancel", job["id"]).stdout
    ended = json.loads(jobs("show", job["id"], "--watch", "--json").stdout)
    assert ended["status"] == "cancelled"
    assert "is cancelled" in jobs("cancel", job["id"]).stdout


def test_an_unknown_job_is_one_line(jobs):
    shown = jobs("show", "job_nope")
    assert shown.returncode == 1
    assert shown.stderr.startswith("error: Not Found")
    assert shown.stderr.count("\n") == 1
