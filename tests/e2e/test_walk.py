"""README's walk, executed as written: every block, in order, against a running service."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from tests.e2e.stack import ROOT
from tests.e2e.walking import blocks, walk

pytestmark = [pytest.mark.stack, pytest.mark.slow, pytest.mark.timeout(600)]

PAGE = ROOT / "README.md"


@pytest.fixture(scope="module")
def walked(stack, tmp_path_factory):
    """The folder, the printed lines of the shell and the Python variables after the walk."""
    folder = tmp_path_factory.mktemp("walk")
    return folder, *walk(PAGE, stack, folder)


def test_the_walk_has_both_languages():
    assert [language for language, _ in blocks(PAGE)] == ["python", "bash", "python"]


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


def test_the_version_of_ones_own_and_the_pictures(walked):
    folder, _, names = walked
    assert names["first"].labels[0] in names["clean"].class_names
    drawn = [np.asarray(Image.open(folder / f"boot-{number}.png").convert("L")) for number in range(2)]
    assert all(picture.shape == (28, 28) and picture.std() > 10 for picture in drawn)
    assert not np.array_equal(*drawn)


def test_the_summary(walked):
    _, _, names = walked
    assert 5 < len(names["candidate"].text) < 120
    assert names["candidate"].text != names["text"]
