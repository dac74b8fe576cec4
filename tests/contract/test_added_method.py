"""CONTRIBUTING.md, followed to the letter: its files make a method that is trained, served, documented and measured."""

import base64
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.core.sources import load
from service.settings import Settings
from tests.contract.conftest import free_port, serve

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
SLUG = "eigenpictures"


@pytest.fixture(scope="module")
def methods(tmp_path_factory):
    """A folder of methods as the page says, with the checkpoint trained and measured by its commands."""
    top = tmp_path_factory.mktemp("contributing")
    blocks = re.findall(rf"`({SLUG}/[\w.]+)`[^\n]*\n(?:[^\n`]+\n)*\n```\w+\n(.*?)```", TEXT, re.DOTALL)
    assert [name for name, _ in blocks] == [f"{SLUG}/{name}" for name in ("card.toml", "schema.py", "method.py")]
    for name, content in blocks:
        path = top / "models" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    commands = re.search(r"```bash\n(deepnight train.*?)```", TEXT, re.DOTALL)[1]
    code = "from service.cli import main; main()"
    shell = f"deepnight() {{ '{sys.executable}' -c '{code}' \"$@\"; }}\n{commands}"
    environment = {**os.environ, "DEEPNIGHT_HOME": str(top / "home"), "DEEPNIGHT_METHODS_PATH": str(top / "models")}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", shell], cwd=top, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return top / "models"


@pytest.fixture(scope="module")
def added(methods, tmp_path_factory):
    settings = Settings(
        home=tmp_path_factory.mktemp("home"), port=free_port(), backend="in-process", methods_path=str(methods)
    )
    for gateway in serve(settings):
        with gateway.client(key=None) as client:
            yield client


def test_the_proof_is_measured(methods):
    figures = json.loads((methods / SLUG / "weights" / "figures.json").read_text())
    accuracy = {figure["subject"]: figure["value"] for figure in figures["figures"]}
    assert accuracy["method"] > accuracy["random projection"] > 0.5
    assert figures["command"] == f"deepnight evaluate {SLUG}"


def test_it_is_listed_with_its_card(added):
    listed = {model["id"]: model for model in added.get("/v1/models").json()["data"]}
    card = listed[f"{SLUG}@1"]
    assert card["capability"] == "embed"
    assert card["default"]
    assert card["parameters"]["properties"]["whiten"]["description"]
    assert [figure["name"] for figure in card["figures"]] == ["1-NN accuracy"] * 2
    assert "train" in [kind["kind"] for kind in card["job_kinds"]]


def test_it_is_documented(added):
    schemas = added.get("/openapi.json").json()["components"]["schemas"]
    assert schemas[f"{SLUG}-parameters"]["properties"].keys() == {"whiten"}


def test_it_is_served_and_measured(added):
    digits = load("digits-8x8", "all").inputs[:3]
    encoded = []
    for picture in digits:
        buffer = io.BytesIO()
        Image.fromarray(picture[:, :, 0]).save(buffer, "PNG")
        encoded.append({"type": "image", "data": base64.b64encode(buffer.getvalue()).decode()})
    body = {"model": SLUG, "input": encoded}
    answer = added.post("/v1/embeddings", json=body)
    assert answer.status_code == 200, answer.text
    vectors = np.asarray([item["embedding"] for item in answer.json()["data"]])
    assert vectors.shape == (3, 16)
    whitened = added.post("/v1/embeddings", json={**body, "parameters": {"whiten": True}}).json()["data"]
    scale = vectors / np.asarray([item["embedding"] for item in whitened])
    assert np.allclose(scale, scale[0], rtol=1e-3)
    assert np.all(np.diff(scale[0]) < 0)
    wrong = added.post("/v1/embeddings", json={**body, "parameters": {"whiten": "maybe"}})
    assert wrong.status_code == 422
    assert wrong.json()["errors"][0]["field"] == "/parameters/whiten"
    metrics = added.get("/metrics").text
    assert f'deepnight_inference_requests_total{{model="{SLUG}@1",outcome="ok"}} 6' in metrics


def test_the_protocol_for_tensors_knows_it(added):
    metadata = added.get(f"/v2/models/{SLUG}").json()
    assert metadata["outputs"][0]["shape"][-1] == 16
