"""README's walk, executed as written: every block, in order, against a running service."""

import itertools
import json
import os
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from models.core.sources import SOURCES
from service.cli.data import is_here
from tests.e2e.stack import ROOT

pytestmark = [pytest.mark.stack, pytest.mark.slow, pytest.mark.timeout(600)]


def blocks():
    """Runs of blocks in one language: ``(language, code)``."""
    walk = re.search(r"<!-- walk:begin -->(.*)<!-- walk:end -->", (ROOT / "README.md").read_text(), re.DOTALL)[1]
    found = re.findall(r"```(\w+)\n(.*?)```", walk, re.DOTALL)
    return [
        (language, "\n".join(code for _, code in run)) for language, run in itertools.groupby(found, lambda b: b[0])
    ]


@pytest.fixture(scope="module")
def walked(stack, tmp_path_factory):
    """The folder, the printed lines of the shell and the Python variables after the walk."""
    folder = tmp_path_factory.mktemp("walk")
    source = "fashion-mnist" if is_here(SOURCES["fashion-mnist"]) else "digits"
    names, printed = {}, ""
    before = Path.cwd()
    os.chdir(folder)
    try:
        for language, written in blocks():
            code = written.replace("http://127.0.0.1:8000", stack.base_url).replace("fashion-mnist", source)
            if language == "python":
                exec(compile(code, "README.md", "exec"), names)
                continue
            shell = ["bash", "-euo", "pipefail", "-c", code]
            done = subprocess.run(shell, capture_output=True, text=True, check=False, timeout=500)
            assert done.returncode == 0, done.stdout + done.stderr + stack.story()
            printed += done.stdout
    finally:
        os.chdir(before)
    return folder, printed, names


def test_the_walk_has_both_languages():
    assert [language for language, _ in blocks()] == ["python", "bash", "python"]


def test_curl_watches_the_job_to_its_end(walked):
    _, printed, _ = walked
    assert "event: progress" in printed
    assert json.loads(re.findall(r"event: status\n(?:id: .*\n)?data: (.*)", printed)[-1])["status"] == "succeeded"


def test_curl_gets_ranking_report_and_cleaned_set(walked):
    folder, printed, names = walked
    ranking = json.loads(re.search(r'\{"object":"mislabeled-detection".*?\}(?=\{|$)', printed, re.DOTALL)[0])["ranking"]
    assert [row["rank"] for row in ranking] == sorted(row["rank"] for row in ranking)
    assert len(ranking) == 5
    report = (folder / "report.html").read_text()
    assert "</html>" in report
    assert not re.search(r'(?:src|href)="https?://', report)
    cleaned = np.load(folder / "cleaned.npz", allow_pickle=False)
    assert 2000 < len(cleaned["labels"]) < 4000
    assert cleaned["images"].shape[1:3] == names["clean"].inputs.shape[1:3]
    assert list(cleaned["class_names"]) == names["clean"].class_names


def test_the_ranking_is_right(walked):
    _, _, names = walked
    assert len(names["hits"]) == 500
    assert sum(names["hits"]) > 350
    assert abs(names["result"]["noise_rate"]["estimate"] - names["wrong"].mean()) < 0.1


def test_the_embedding_and_the_distances(walked):
    _, printed, names = walked
    assert len(names["embedding"]) == 128
    assert np.linalg.norm(names["embedding"]) == pytest.approx(1, abs=1e-3)
    assert re.search(r'"object":\s*"distance"', printed)
