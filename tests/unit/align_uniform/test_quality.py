import json
from pathlib import Path

import numpy as np
import pytest

from models import align_uniform
from models.align_uniform import losses
from models.align_uniform.quality import class_pairs, run
from models.align_uniform.schema import EmbeddingQuality
from models.core.checkpoint import Checkpoint, CheckpointConfig
from models.core.dataset import Dataset
from models.core.inputs import TextSpec
from models.core.method import MethodError
from models.core.registry import Registry, UnknownMethodError

LETTERS = """
import numpy as np
from models.core.method import Method

class Letters(Method):
    @classmethod
    def load(cls, checkpoint, device):
        return cls()

    def predict(self, inputs, params):
        return np.array([[text.count(chr(97 + i)) for i in range(26)] for text in inputs], dtype=np.float32)

    @classmethod
    def evaluate(cls, checkpoint, run, dataset=None):
        raise ValueError("nothing to evaluate")
"""


def sphere(count, dimensions, seed=0):
    rows = np.random.default_rng(seed).normal(size=(count, dimensions)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_pictures_through_the_shipped_model(make_job, fashion):
    job = make_job(fashion)
    report = run(job, EmbeddingQuality(max_samples=400, space="projection"))
    json.dumps(report)
    assert report["model"] == "align-uniform"
    assert report["samples"] == 400
    assert report["of"] == 600
    assert 0 < report["align"] < 1.2
    assert report["uniform_optimum"] == pytest.approx(losses.uniformity_optimum(64))
    assert -4.2 < report["uniform"] < -2.5
    assert report["knn_accuracy"] > 0.6
    assert [item["class"] for item in report["per_class"]] == fashion.class_names
    assert all(item["uniform"] > report["uniform"] for item in report["per_class"])
    assert sum(report["positive_distances"]["histogram"]["counts"]) == 400
    for name in ("circle.png", "distances.png"):
        assert (job.folder / name).read_bytes().startswith(b"\x89PNG")


def test_the_same_job_gives_the_same_figures(make_job, fashion):
    parameters = EmbeddingQuality(max_samples=100)
    assert run(make_job(fashion), parameters) == run(make_job(fashion), parameters)


def test_vectors_with_consecutive_pairs(make_job):
    rows = sphere(300, 8)
    noisy = rows + 0.05 * sphere(300, 8, seed=1)
    both = np.stack([3 * rows, noisy], axis=1).reshape(-1, 8)
    report = run(make_job(Dataset("vectors", both)), EmbeddingQuality(positives="consecutive"))
    unit = both / np.linalg.norm(both, axis=1, keepdims=True)
    assert report["model"] is None
    assert report["align"] == pytest.approx(np.square(unit[::2] - unit[1::2]).sum(1).mean(), rel=1e-4)
    assert report["effective_rank"] == pytest.approx(8, abs=0.1)
    assert report["knn_accuracy"] is None
    assert report["per_class"] == []


def test_a_sample_keeps_consecutive_pairs_together(make_job):
    rows = np.repeat(sphere(500, 6), 2, axis=0)
    report = run(make_job(Dataset("vectors", rows)), EmbeddingQuality(positives="consecutive", max_samples=200))
    assert report["samples"] == 200
    assert report["align"] == pytest.approx(0, abs=1e-9)


def test_labelled_vectors_pair_inside_their_class(make_job):
    centres = np.eye(4, dtype=np.float32)
    labels = np.repeat(np.arange(4), 25)
    report = run(make_job(Dataset("vectors", centres[labels], labels, list("abcd"))), EmbeddingQuality())
    assert report["align"] == pytest.approx(0, abs=1e-9)
    assert report["knn_accuracy"] == 1
    assert [item["uniform"] for item in report["per_class"]] == pytest.approx([0] * 4, abs=1e-6)


def test_collapse_is_said(make_job):
    rows = sphere(1, 8) + 1e-3 * sphere(64, 8, seed=1)
    report = run(make_job(Dataset("vectors", rows)), EmbeddingQuality(positives="consecutive"))
    assert any("collapsed" in warning for warning in report["warnings"])


def test_class_pairs_join_members_of_one_class():
    labels = np.array([0, 1, 0, 2, 1, 0])
    first, second = class_pairs(labels, 0)
    assert (labels[first] == labels[second]).all()
    assert (first != second).all()
    assert sorted(first) == [0, 1, 2, 4, 5]


@pytest.mark.parametrize(
    ("dataset", "parameters", "message"),
    [
        (Dataset("vectors", sphere(5, 3)), {}, "at least 16 samples"),
        (Dataset("vectors", np.zeros((20, 3), dtype=np.float32)), {}, "row 0 is zero"),
        (Dataset("vectors", np.ones((20, 1), dtype=np.float32)), {}, "one dimension"),
        (Dataset("vectors", sphere(21, 3)), {"positives": "consecutive"}, "21 rows is odd"),
        (Dataset("vectors", sphere(20, 3)), {"positives": "class"}, "needs labels"),
        (Dataset("vectors", sphere(20, 3)), {"positives": "augment"}, "views of pictures"),
        (Dataset("text", ["words"] * 20), {}, "data set of text needs"),
    ],
)
def test_bad_input_is_named(make_job, dataset, parameters, message):
    with pytest.raises(MethodError, match=message):
        run(make_job(dataset), EmbeddingQuality(**parameters))


def test_a_model_that_does_not_fit(make_job, fashion):
    with pytest.raises(MethodError, match="embeds pictures, the data set holds vectors"):
        run(make_job(Dataset("vectors", sphere(20, 3)), "align-uniform"), EmbeddingQuality())
    with pytest.raises(MethodError, match="robust-ot does not embed"):
        run(make_job(fashion), EmbeddingQuality(model="robust-ot"))
    with pytest.raises(UnknownMethodError):
        run(make_job(fashion), EmbeddingQuality(model="nothing"))


def test_any_embedding_model_is_measured(make_job, tmp_path):
    """A method of another folder, on texts: nothing of this one is asked of it."""
    folder = tmp_path / "methods" / "letters"
    folder.mkdir(parents=True)
    card = (Path(align_uniform.__file__).parent / "card.toml").read_text().partition("[[jobs]]")[0]
    (folder / "card.toml").write_text(card.replace('"align-uniform"', '"letters"').replace('["image"]', "[]"))
    (folder / "schema.py").write_text("from pydantic import BaseModel\n\nclass Params(BaseModel):\n    pass\n")
    (folder / "method.py").write_text(LETTERS)
    Checkpoint.write(folder / "weights", CheckpointConfig(method="letters", input=TextSpec()), {})
    words = [f"{a}{b}{a}" for a in "abcdef" for b in "ghijk"]
    job = make_job(Dataset("text", words, np.arange(30) // 5, list("abcdef")))
    job.registry = Registry(tmp_path / "methods")
    report = run(job, EmbeddingQuality(model="letters", neighbours=4))
    assert report["model"] == "letters"
    assert report["dimensions"] == 26
    assert report["knn_accuracy"] == 1
    assert report["align"] == pytest.approx(2 - 2 * 4 / 5, abs=1e-5)
    with pytest.raises(MethodError, match="no choice of space"):
        run(job, EmbeddingQuality(model="letters", space="projection"))
