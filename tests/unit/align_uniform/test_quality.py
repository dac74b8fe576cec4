import json

import numpy as np
import pytest

from models.align_uniform import losses
from models.align_uniform.quality import class_pairs, run
from models.align_uniform.schema import EmbeddingQuality
from models.core.dataset import Dataset
from models.core.method import MethodError


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
