"""The curl lines of the documentation, executed as written against the real gateway and a real worker."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from tests.contract.conftest import KEY
from tests.contract.waiting import ended

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests/data"
PAGES = sorted(path for path in (ROOT / "docs/methods").glob("*.md") if "curl" in path.read_text())
FAIL = 'curl() { command curl --fail-with-body "$@"; }\n'

pytestmark = [pytest.mark.usefixtures("worker"), pytest.mark.timeout(300)]


@pytest.fixture
def shell(tmp_path, gateway):
    """Runs bash in a folder with the files that the pages name; curl sends the key and fails on an error's status."""
    shutil.copy(DATA / "fashion-mnist-600.npz", tmp_path / "pictures.npz")
    Image.new("L", (28, 28), 90).save(tmp_path / "picture.png")
    (tmp_path / ".curlrc").write_text(f'header = "Authorization: Bearer {KEY}"\n')

    def run(script):
        written = script.replace("http://127.0.0.1:8000", gateway.url).replace("localhost:8000", gateway.url)
        environment = os.environ | {"CURL_HOME": str(tmp_path)}
        command = ["bash", "-euo", "pipefail", "-c", FAIL + written]
        options = {"cwd": tmp_path, "env": environment, "capture_output": True, "text": True, "timeout": 240}
        done = subprocess.run(command, check=False, **options)
        assert done.returncode == 0, f"{script}\n{done.stdout[-3000:]}\n{done.stderr[-2000:]}"
        return done.stdout

    return run


def blocks(path, language):
    return re.findall(rf"```{language}\n(.*?)```", path.read_text(), re.DOTALL)


def test_the_page_of_all_routes_runs_from_top_to_bottom(shell, tmp_path):
    printed = shell("\n".join(blocks(ROOT / "docs/curl.md", "bash")))
    assert "event: status" in printed
    assert json.loads((tmp_path / "card.json").read_text())["version"] == "mine"
    assert json.loads((tmp_path / "job.json").read_text())["status"] == "succeeded"


def test_the_page_names_every_route(gateway):
    written = "\n".join(blocks(ROOT / "docs/curl.md", "bash")).replace("\\\n", " ")
    calls = set()
    for line in written.splitlines():
        for url in re.findall(r"\$URL(/?[^\s\"?]*)", line):
            method = re.search(r"-X (\w+)", line)
            sends = re.search(r" (-d|-F) ", line) or line.rstrip().endswith("-d '{")
            calls.add((method[1] if method else "POST" if sends else "GET", url))
    routes = [(method.upper(), path) for path, item in gateway.app.openapi()["paths"].items() for method in item]
    assert [route for route in routes if not any(named(route, call) for call in calls)] == []


def named(route, call):
    pattern = re.sub(r"\{\w+\}", "[^/]+", route[1])
    return route[0] == call[0] and re.fullmatch(pattern, call[1])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_requests_of_a_method_page(page, shell, client):
    """`ds_...` and `ds_NAME` stand for a labelled set of pictures, `job_...` for the job that the page started last."""
    with (DATA / "fashion-mnist-600.npz").open("rb") as file:
        dataset = client.post("/v1/datasets", files={"file": ("pictures.npz", file)}).json()["id"]
    jobs = []
    for block in blocks(page, "\\w*"):
        for command in re.split(r"^(?=curl )", block, flags=re.MULTILINE):
            if not command.startswith("curl "):
                continue
            if "job_..." in command:
                assert ended(client, jobs[-1])["status"] == "succeeded"
            filled = re.sub(r"ds_(\.\.\.|[A-Z]+)", dataset, command)
            printed = shell(filled.replace("job_...", jobs[-1] if jobs else "job_..."))
            answer = json.loads(printed)
            if answer.get("object") == "job":
                jobs.append(answer["id"])
    assert jobs
    for job in jobs:
        client.post(f"/v1/jobs/{job}/cancel")
    assert {ended(client, job)["status"] for job in jobs} <= {"succeeded", "cancelled"}
