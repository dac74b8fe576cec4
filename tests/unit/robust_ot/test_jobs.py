"""Both jobs from uploaded files to artifacts, and on after a stop."""

import csv
import itertools
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score

from models.core.method import MethodError
from models.core.run import Cancelled
from models.robust_ot.elbow import elbow
from models.robust_ot.jobs import robust_distance
from models.robust_ot.ranking import outlier_ranking
from models.robust_ot.schema import OutlierRankingParameters, RobustDistanceParameters
from tests.unit.robust_ot.uploads import UploadingJob

COUNT, BAD = 200, 20
NAMES = np.array(["=cmd", "plain"])


def vectors():
    rng = np.random.default_rng(1)
    dirty, trusted = rng.normal(size=(COUNT, 5)), rng.normal(size=(150, 5)) + 0.2
    truth = rng.choice(COUNT, BAD, replace=False)
    dirty[truth] += 6.0
    labels = rng.integers(0, 2, COUNT)
    return dirty.astype(np.float32), trusted.astype(np.float32), labels, np.sort(truth).tolist()


@pytest.fixture
def job(tmp_path):
    dirty, trusted, labels, truth = vectors()
    job = UploadingJob(tmp_path)
    job.dataset_id = job.upload("dirty", x=dirty, y=labels, class_names=NAMES)
    job.trusted = job.upload("trusted", x=trusted)
    job.truth = truth
    return job


def test_ranking_puts_outliers_first(job):
    parameters = OutlierRankingParameters(trusted=job.trusted, outlier_fraction=0.1, truth=job.truth)
    result = outlier_ranking(job, parameters)
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    ranking = result["ranking"]
    assert [item["rank"] for item in ranking] == list(range(1, COUNT + 1))
    weights = [item["weight"] for item in ranking]
    assert weights == sorted(weights) and np.mean(weights) == pytest.approx(1.0)
    assert sorted(item["index"] for item in ranking[:BAD]) == job.truth
    assert [item["outlier"] for item in ranking] == [True] * BAD + [False] * (COUNT - BAD)
    assert result["outliers"] == {"count": BAD, "share": BAD / COUNT}
    assert result["auroc"] == result["auroc_nearest"] == 1.0
    assert result["lower_bound"] <= result["distance"] < result["plain_distance"]
    labels = job.dataset(job.dataset_id).labels
    assert all(item["label"] == NAMES[labels[item["index"]]] for item in ranking)
    assert {entry["label"] for entry in result["class_weights"]} == set(NAMES)


def test_ranking_files_agree_with_the_result(job):
    ranking = outlier_ranking(job, OutlierRankingParameters(trusted=job.trusted, outlier_fraction=0.1))["ranking"]
    assert pq.read_table(job.folder / "ranking.parquet").to_pylist() == ranking
    with (job.folder / "ranking.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["index"]) for row in rows] == [item["index"] for item in ranking]
    assert {row["label"] for row in rows} == {"'=cmd", "plain"}, "no cell is a formula"
    with Image.open(job.folder / "histogram.png") as picture:
        assert picture.format == "PNG" and len(picture.getcolors(1 << 20)) > 8


def test_auroc_is_that_of_the_ranking(job):
    wrong = [*job.truth[:10], *(i for i in range(20) if i not in job.truth)]
    parameters = OutlierRankingParameters(trusted=job.trusted, outlier_fraction=0.1, truth=wrong)
    result = outlier_ranking(job, parameters)
    marked = [item["index"] in wrong for item in result["ranking"]]
    assert result["auroc"] == pytest.approx(roc_auc_score(marked, [-item["rank"] for item in result["ranking"]]))
    assert result["auroc_nearest"] == pytest.approx(
        roc_auc_score(marked, [item["nearest_trusted"] for item in result["ranking"]])
    )
    assert 0.5 < result["auroc"] < 1.0


def test_every_sample_is_ranked_though_few_are_drawn(job):
    parameters = OutlierRankingParameters(trusted=job.trusted, outlier_fraction=0.1, truth=job.truth)
    whole = {item["index"]: item["weight"] for item in outlier_ranking(job, parameters)["ranking"]}
    (job.folder / "state.npz").unlink()
    result = outlier_ranking(job, parameters.model_copy(update={"max_samples": 60}))
    assert result["drawn"] == [60, 60] and len(result["ranking"]) == COUNT
    part = {item["index"]: item["weight"] for item in result["ranking"]}
    assert result["auroc"] == 1.0
    order = sorted(whole)
    assert np.corrcoef([whole[i] for i in order], [part[i] for i in order])[0, 1] > 0.9


def test_pictures_of_other_sizes_and_colours_are_compared(tmp_path):
    rng = np.random.default_rng(2)
    job = UploadingJob(tmp_path)
    grey = np.repeat(rng.integers(60, 90, (40, 1, 1, 1)), 12, axis=1).repeat(12, axis=2).astype(np.uint8)
    grey[:4] = rng.integers(0, 256, (4, 12, 12, 1))
    colour = np.repeat(rng.integers(60, 90, (30, 1, 1, 1)), 8, axis=1).repeat(10, axis=2).repeat(3, axis=3)
    job.dataset_id = job.upload("grey", images=grey)
    trusted = job.upload("colour", images=colour.astype(np.uint8))
    parameters = OutlierRankingParameters(trusted=trusted, outlier_fraction=0.1, truth=[0, 1, 2, 3])
    assert outlier_ranking(job, parameters)["auroc"] == 1.0


def test_labelled_ranking_sees_wrong_labels(tmp_path):
    rng = np.random.default_rng(3)
    job = UploadingJob(tmp_path)
    labels = np.arange(240) % 2
    points = (rng.normal(size=(240, 2)) + 8.0 * labels[:, None]).astype(np.float32)
    wrong = labels[:120].copy()
    wrong[:6] = 1 - wrong[:6]
    job.dataset_id = job.upload("wrong", x=points[:120], y=wrong)
    trusted = job.upload("right", x=points[120:], y=labels[120:])
    fields = {"trusted": trusted, "outlier_fraction": 0.05, "truth": list(range(6))}
    blind = outlier_ranking(job, OutlierRankingParameters(**fields))["auroc"]
    (job.folder / "state.npz").unlink()
    assert outlier_ranking(job, OutlierRankingParameters(**fields, labelled=True))["auroc"] > 0.95 > blind


def curve(job, **changes):
    return RobustDistanceParameters(b=job.trusted, **changes)


def test_sweep_falls_from_the_plain_distance_and_bends_at_the_outliers(job):
    result = robust_distance(job, curve(job, tolerance=1e-3))
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    points = result["curve"]
    distances = [point["distance"] for point in points]
    assert distances[0] == pytest.approx(result["plain_distance"])
    assert all(b <= a * (1 + 1e-3) for a, b in itertools.pairwise(distances))
    assert all(point["lower_bound"] <= point["distance"] and point["converged"] for point in points)
    assert result["elbow"]["outlier_fraction"] == 0.1 and result["elbow"]["slope_ratio"] < 0.3
    with Image.open(job.folder / "curve.png") as picture:
        assert picture.format == "PNG" and len(picture.getcolors(1 << 20)) > 8


class Stopped(UploadingJob):
    """Stops where the report says so."""

    stop_at = ""

    def progress(self, fraction, stage, message=""):
        super().progress(fraction, stage, message)
        if self.stop_at and message == self.stop_at:
            raise Cancelled


@pytest.mark.parametrize("kind", ["sweep", "ranking"])
def test_a_stopped_job_goes_on_to_the_same_result(tmp_path, kind):
    dirty, trusted, labels, truth = vectors()
    results = []
    for folder, stop_at in (("whole", ""), ("stopped", "outlier fraction 0.1" if kind == "sweep" else "200 samples")):
        reports = []
        job = Stopped(tmp_path / folder, report=lambda *report, kept=reports: kept.append(report))
        job.dataset_id, job.trusted = job.upload("dirty", x=dirty, y=labels), job.upload("trusted", x=trusted)
        if kind == "sweep":
            call = lambda job=job: robust_distance(job, curve(job))  # noqa: E731
        else:
            call = lambda job=job: outlier_ranking(job, OutlierRankingParameters(trusted=job.trusted, truth=truth))  # noqa: E731
        job.stop_at = stop_at
        if stop_at:
            with pytest.raises(Cancelled):
                call()
            job.stop_at = ""
            before = len(reports)
            results.append(call())
            assert "plain" not in {stage for _, stage, _ in reports[before:]}, "what was done is not done again"
        else:
            results.append(call())
            fractions = [fraction for fraction, _, _ in reports]
            assert fractions == sorted(fractions) and 0.0 <= fractions[0] < fractions[-1] <= 1.0
    for result in results:
        for point in result.get("curve", []):
            point.pop("seconds")
    assert results[0] == results[1]


def test_what_cannot_be_compared_is_named(job):
    other = job.upload("longer", x=np.zeros((20, 6), np.float32) + np.arange(20)[:, None])
    pictures = job.upload("pictures", images=np.random.default_rng(0).integers(0, 256, (10, 4, 4), dtype=np.uint8))
    for trusted, message in (
        (other, "parameters.trusted: vectors of 6"),
        (pictures, "parameters.trusted: it holds images"),
        ("ds_missing", "parameters.trusted: there is no data set"),
    ):
        with pytest.raises(MethodError, match=message):
            outlier_ranking(job, OutlierRankingParameters(trusted=trusted))
    with pytest.raises(MethodError, match=r"parameters\.truth"):
        outlier_ranking(job, OutlierRankingParameters(trusted=job.trusted, truth=[COUNT]))
    with pytest.raises(MethodError, match="labels"):
        robust_distance(job, curve(job, labelled=True))


def test_elbow_of_two_lines():
    x = np.array([0.0, 0.1, 0.2, 0.3, 0.4, 0.5])
    found = elbow(x**2 / 2, 1.0 - 2.0 * x + 1.8 * np.maximum(0.0, x - 0.2))
    assert found.position == 2 and found.slope_ratio == pytest.approx(0.1)
    assert elbow(x**2 / 2, np.ones(6)) is None
    assert elbow(x[:3], 1.0 - x[:3]) is None
