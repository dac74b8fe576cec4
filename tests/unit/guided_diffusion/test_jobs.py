"""The kinds of jobs of this method, run on uploads."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from models.core.method import MethodError
from models.core.run import Cancelled
from models.guided_diffusion.jobs import evaluate_images, guidance_sweep, likelihood
from models.guided_diffusion.schema import EvaluateImages, GuidanceSweep, Likelihood, Params
from tests.unit.guided_diffusion.conftest import halves
from tests.unit.local_job import LocalJob

COUNT = 60


@pytest.fixture(scope="module")
def uploads(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uploads")
    same, noise = halves(COUNT, seed=9), np.random.default_rng(0).integers(0, 256, (COUNT, 8, 8, 1), dtype=np.uint8)
    few = halves(12)
    for name, images, labels in (
        ("same", same.inputs, same.labels),
        ("noise", noise, same.labels),
        ("few", few.inputs, few.labels),
    ):
        np.savez(folder / f"{name}.npz", images=images, labels=labels)
    return folder


class TrainedJob(LocalJob):
    """A job on the version that the tests trained."""

    def __init__(self, folder, upload, trained, **reports):
        super().__init__(folder, upload=upload, **reports)
        self.trained = trained

    def checkpoint(self, model):
        assert model == "guided-diffusion"
        return self.trained


@pytest.fixture
def job(tmp_path, uploads, trained):
    def start(name, **reports):
        return TrainedJob(tmp_path / name, uploads / f"{name}.npz", trained[0], **reports)

    return start


def plain(result):
    return json.loads(json.dumps(result, allow_nan=False))


def test_a_sweep_of_guidance_scales(job):
    shares = []
    started = job("same", report=lambda share, *_: shares.append(share))
    wanted = GuidanceSweep(scales=[0, 8], samples=40, params=Params(steps=10, unconditional=True))
    result = plain(guidance_sweep(started, wanted))
    without, strong = result["scales"]
    assert result["samples"] == 40
    assert (without["guidance_scale"], strong["guidance_scale"]) == (0, 8)
    assert strong["consistency"] > without["consistency"] + 0.15
    assert all(0 <= row[name] <= 1 for row in result["scales"] for name in ("precision", "recall", "consistency"))
    assert shares == sorted(shares) and shares[0] >= 0 and shares[-1] < 1
    assert [step for step, _ in started.metrics["fid"]] == [0, 1]
    for name in ("trade-off.png", "samples-0.png", "samples-8.png"):
        with Image.open(started.folder / name) as picture:
            assert min(picture.size) > 60


def test_pictures_are_compared_with_others_and_with_drawn_ones(job, uploads):
    started = job("same")
    other = started.register_dataset(uploads / "noise.npz", "noise")
    far = plain(evaluate_images(started, EvaluateImages(reference=other, samples=COUNT)))
    drawn = plain(evaluate_images(started, EvaluateImages(samples=COUNT)))
    itself = plain(evaluate_images(started, EvaluateImages(reference=started.dataset_id, samples=COUNT)))
    assert itself["fid"] == pytest.approx(0, abs=1e-6)
    assert itself["sfid"] == pytest.approx(0, abs=1e-6)
    assert (itself["precision"], itself["recall"]) == (1, 1)
    assert itself["judge_agrees_with_labels"] > 0.9
    assert far["fid"] > 4 * drawn["fid"]
    assert far["precision"] < drawn["precision"]
    assert (drawn["reference"], far["reference"]) == ("drawn", other)


def test_likelihood_knows_pictures_from_noise(job):
    measured = {}
    for name in ("same", "noise"):
        started = job(name)
        result = plain(likelihood(started, Likelihood(samples=20, steps=20)))
        with (started.folder / "likelihood.csv").open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == result["samples"] == 20
        mean = np.mean([float(row["bits_per_dimension"]) for row in rows])
        assert mean == pytest.approx(result["bits_per_dimension"], abs=1e-4)
        worst = max(rows, key=lambda row: float(row["bits_per_dimension"]))
        assert result["highest"][0] == int(worst["index"])
        measured[name] = result["bits_per_dimension"]
    assert 0 < measured["same"] < measured["noise"] - 1


def test_what_cannot_be_measured_is_named(job):
    with pytest.raises(MethodError, match="12 pictures are fewer than 20"):
        guidance_sweep(job("few"), GuidanceSweep(scales=[0]))
    with pytest.raises(MethodError, match="has 100"):
        likelihood(job("few"), Likelihood(steps=200))
    with pytest.raises(KeyError):
        evaluate_images(job("same"), EvaluateImages(reference="ds_missing"))
    with pytest.raises(ValueError, match="from 0 to 20"):
        GuidanceSweep(scales=[1, 21])


def test_a_cancelled_sweep_stops(job):
    def stop(share, *_):
        if share > 0.4:
            raise Cancelled

    with pytest.raises(Cancelled):
        guidance_sweep(job("same", report=stop), GuidanceSweep(scales=[0, 1], samples=20, params=Params(steps=4)))
