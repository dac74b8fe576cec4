"""The jobs: the search for a radius and the sharpness report, on the real data set store."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from models.core.method import MethodError
from models.core.run import Cancelled
from models.sam.jobs import choose, report, search
from models.sam.schema import PRESETS, Config, RhoSearch, SharpnessReport
from tests.unit.local_job import LocalJob


@pytest.fixture(scope="module")
def clouds(tmp_path_factory):
    """Three noisy clouds of vectors, 240 rows, as an uploaded file."""
    generator = np.random.default_rng(0)
    labels = np.arange(240) % 3
    vectors = generator.normal(size=(240, 5)) + 2 * np.eye(5)[labels]
    path = tmp_path_factory.mktemp("upload") / "clouds.npz"
    np.savez(path, x=vectors.astype(np.float32), y=labels)
    return path


SEARCH = RhoSearch(grid=[0, 0.1, 2.0], config=Config(epochs=4, batch_size=40, test_share=0))


class VersionJob(LocalJob):
    """A job whose model is a version trained a moment ago."""

    trained = None

    def checkpoint(self, model):
        assert model == self.model
        return self.trained


def test_the_search_measures_every_radius_and_chooses_the_best(clouds, tmp_path):
    job = LocalJob(tmp_path, upload=clouds)
    result = search(job, SEARCH)
    rows = result["rows"]
    assert [row["rho"] for row in rows] == [0, 0.1, 2.0]
    assert [row["perturbed_steps"] for row in rows] == [0, 20, 20]
    assert result["training_samples"] + result["validation_samples"] == 240 and result["validation_samples"] == 48
    alive = [row for row in rows if not row["collapsed"]]
    best = max(row["validation_accuracy"] for row in alive)
    assert result["rho"] == min(row["rho"] for row in alive if row["validation_accuracy"] == best)
    assert result["sharpness_aware"]["kind"] == ("sam" if result["rho"] else "none")
    assert Config(sharpness_aware=result["sharpness_aware"]).sharpness_aware.radius == result["rho"]
    assert Image.open(tmp_path / "rho.png").size[0] > 400
    assert set(job.metrics) == {f"loss, rho {rho}, seed 0" for rho in ("0", "0.1", "2")}


def test_a_killed_search_ends_with_the_same_rows(clouds, tmp_path):
    class Killed(Exception):
        pass

    def die(fraction, stage, message):
        if fraction > 0.5:
            raise Killed

    whole = search(LocalJob(tmp_path / "whole", upload=clouds), SEARCH)
    with pytest.raises(Killed):
        search(LocalJob(tmp_path / "killed", upload=clouds, report=die), SEARCH)
    again = search(LocalJob(tmp_path / "killed", upload=clouds), SEARCH)
    assert whole["rows"] == again["rows"] and whole["rho"] == again["rho"]


def test_a_cancelled_search_stops(clouds, tmp_path):
    def cancel(fraction, stage, message):
        raise Cancelled

    with pytest.raises(Cancelled):
        search(LocalJob(tmp_path, upload=clouds, report=cancel), SEARCH)


def test_a_diverged_training_is_a_collapse_not_a_failure(clouds, tmp_path):
    config = Config(epochs=2, batch_size=40, learning_rate=10, optimizer="sgd")
    result = search(LocalJob(tmp_path, upload=clouds), RhoSearch(grid=[0, 2.0], config=config))
    assert all(row["collapsed"] for row in result["rows"]) and result["rho"] is None
    assert result["sharpness_aware"] is None


def row(rho, accuracy, collapsed=0):
    return {"rho": rho, "validation_accuracy": accuracy, "collapsed": collapsed}


def test_ties_go_to_the_smaller_radius_and_a_collapse_is_never_chosen():
    assert choose([row(0.0, 0.5), row(0.1, 0.7), row(0.2, 0.7), row(0.5, 0.9, 1)]) == 0.1
    assert choose([row(0.1, 0.6), row(0.1, 0.8), row(0.2, 0.9), row(0.2, 0.4)]) == 0.1
    assert choose([row(0.1, None, 1)]) is None


@pytest.mark.parametrize(
    ("slug", "config"),
    [("sam", {"epochs": 3, "batch_size": 40, "test_share": 0}), ("aum", {"epochs": 8, "batch_size": 40})],
)
def test_the_report_of_a_version(clouds, tmp_path, slug, config):
    job = VersionJob(tmp_path, upload=clouds)
    job.model = f"{slug}@trained"
    entry = job.registry[slug]
    training = LocalJob(tmp_path / "training")
    job.trained = entry.method.train(job.dataset(job.dataset_id), entry.config(**config), training)
    parameters = SharpnessReport(samples=90, rho=0.1, probes=200, points=5, iterations=100)
    result = report(job, parameters)
    assert result["model"] == job.model and 85 <= result["samples"] <= 95
    assert result["lambda_max"] > result["lambda_5"] > result["lambda_min"] and result["lambda_max"] > 0
    assert result["ratio"] == result["lambda_max"] / result["lambda_5"]
    assert result["residual"] < 1e-2 * result["lambda_max"]
    assert 0 < result["max_increase_1_step"] <= result["max_increase_20_steps"] * (1 + 1e-6)
    assert abs(result["random_increase"]) < result["max_increase_1_step"]
    plane = json.loads((tmp_path / "landscape.json").read_text())
    assert np.shape(plane["loss"]) == (5, 5) and plane["loss"][2] == result["slice"]["loss"]
    assert plane["loss"][2][2] == pytest.approx(result["loss"], rel=1e-5)
    assert Image.open(tmp_path / "landscape.png").size[0] > 600
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    with torch.inference_mode():
        again = report(job, parameters)  # predictions run in this mode; the report does not mind
    assert again == result


def test_a_version_without_a_loss_is_refused(clouds, tmp_path):
    job = LocalJob(tmp_path, upload=clouds)
    job.model = "align-uniform"
    with pytest.raises(MethodError, match="align-uniform offers no loss"):
        report(job, SharpnessReport())


def test_parameters():
    assert RhoSearch().grid == [0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5]
    assert PRESETS["cpu"].sharpness_aware.radius == 0.1 and PRESETS["paper"].sharpness_aware.radius == 0.05
    bad = [
        (RhoSearch, {"grid": [0.1]}, "grid"),
        (RhoSearch, {"grid": [0.1, 0.1]}, "grid"),
        (RhoSearch, {"grid": [0, 2.5]}, "grid"),
        (RhoSearch, {"config": {"early_stopping": {}}}, "early_stopping"),
        (RhoSearch, {"config": {"sharpness_aware": {"rho": 3}}}, "rho"),
        (SharpnessReport, {"probes": 1}, "probes"),
        (SharpnessReport, {"samples": 0}, "samples"),
        (Config, {"unknown": 1}, "unknown"),
        (Config, {"sharpness_aware": {"every": 2, "m": 4}}, "every"),
    ]
    for model, fields, named in bad:
        with pytest.raises(ValueError, match=named):
            model.model_validate(fields)
