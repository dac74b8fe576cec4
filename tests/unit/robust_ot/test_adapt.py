"""Robust adversarial domain adaptation: its game, and the job from uploaded files to artifacts."""

import csv
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from models.core.checkpoint import Checkpoint
from models.core.classifiers import logits_of, read_classifier
from models.core.dataset import Dataset
from models.core.method import MethodError
from models.core.run import Cancelled
from models.robust_ot.adapt import adapt
from models.robust_ot.adaptation import Adaptation, domain_loss, feature_critic
from models.robust_ot.adaptation_proof import ACCURACY, AUROC, METHOD, PLAIN, SOURCE_ONLY, centred, claims, polluted
from models.robust_ot.dual import chi_square
from models.robust_ot.proofs import Measured
from models.robust_ot.schema import AdaptParameters
from tests.unit.robust_ot.uploads import UploadingJob

CPU = torch.device("cpu")
COUNT, BAD = 240, 24
QUICK = {"steps": 200, "source_steps": 60, "batch": 32, "solve_every": 20, "outlier_fraction": 0.1}


def domains():
    """Two classes; the target is moved, and its first samples are of neither."""
    rng = np.random.default_rng(0)
    labels = np.arange(COUNT) % 2
    classes = np.array([[-2.0, 0.0, 0.0], [2.0, 0.0, 0.0]])
    source = classes[labels] + rng.normal(size=(COUNT, 3)) * 0.5
    target = classes[labels] + rng.normal(size=(COUNT, 3)) * 0.5 + [0.5, 0.0, 0.5]
    target[:BAD] = np.array([0.0, 12.0, 0.0]) + rng.normal(size=(BAD, 3))
    return source.astype(np.float32), target.astype(np.float32), labels


def adaptation(**changes):
    source, target, labels = domains()
    parameters = AdaptParameters(target="t", **(QUICK | changes))
    tensors = [torch.from_numpy(side) for side in (source, target)]
    return Adaptation(tensors[0], torch.from_numpy(labels), 2, tensors[1], parameters, 0, CPU)


@pytest.fixture
def job(tmp_path):
    source, target, labels = domains()
    job = UploadingJob(tmp_path, seed=3)
    job.dataset_id = job.upload("source", x=source, y=labels, class_names=np.array(["=left", "right"]))
    names = np.array(["right", "=left", "junk"])
    truth = np.where(np.arange(COUNT) < BAD, 2, 1 - labels)
    job.target = job.upload("target", x=target, y=truth, class_names=names)
    job.unlabelled = job.upload("unlabelled", x=target)
    return job


def test_domain_loss_is_the_cross_entropy_of_the_domains():
    scores = torch.tensor([0.3, -1.2]), torch.tensor([0.7, 2.0])
    expected = torch.nn.functional.binary_cross_entropy_with_logits(
        torch.cat(scores), torch.tensor([1.0, 1.0, 0.0, 0.0])
    )
    assert float(domain_loss(*scores, torch.ones(2))) == pytest.approx(2 * float(expected))
    weighted = domain_loss(*scores, torch.tensor([2.0, 0.0]))
    first = torch.nn.functional.softplus(scores[1][0])
    assert float(weighted) == pytest.approx(float(torch.nn.functional.softplus(-scores[0]).mean() + first))


def test_the_critic_is_lipschitz():
    critic = feature_critic(6)
    for _ in range(200):
        critic(torch.randn(4, 6))
    critic.eval()
    a, b = torch.randn(500, 6), torch.randn(500, 6)
    slopes = (critic(a) - critic(b)).abs()[:, 0] / (a - b).norm(dim=1)
    assert float(slopes.detach().max()) <= 1.0 + 1e-3


def test_weights_fall_where_the_critic_is_sure_and_stay_in_the_ball():
    game = adaptation()
    for number in range(1, QUICK["steps"] + 1):
        game.step(number)
    uniform = np.full(COUNT, 1 / COUNT)
    assert game.weights.mean() == pytest.approx(1.0) and game.weights.min() >= 0.0
    assert chi_square(game.weights, uniform) <= game.parameters.rho * (1 + 1e-9)
    assert game.weights[:BAD].mean() < 0.5 < 1.0 < game.weights[BAD:].mean()


@pytest.mark.parametrize("changes", [{"outlier_fraction": 0.0}, {"source_steps": 200}])
def test_without_outliers_or_adaptation_every_weight_stays_one(changes):
    game = adaptation(**changes)
    for number in range(1, QUICK["steps"] + 1):
        game.step(number)
    assert (game.weights == 1.0).all()


def test_the_source_alone_never_touches_critic_or_target():
    game = adaptation(source_steps=200)
    before = {name: value.clone() for name, value in game.critic.state_dict().items()}
    game.target.fill_(float("nan"))
    for number in range(1, 21):
        game.step(number)
        assert float(game.losses["critic"]) == 0.0
    assert all(torch.equal(value, before[name]) for name, value in game.critic.state_dict().items())


def test_result_and_files_agree(job):
    result = adapt(job, AdaptParameters(target=job.target, **QUICK))
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    rows = result["predictions"]
    assert [row["index"] for row in rows] == list(range(COUNT))
    assert {row["label"] for row in rows} == {"=left", "right"}
    assert result["accuracy"]["samples"] == COUNT - BAD, "samples of no known class are not counted"
    labels = domains()[2]
    right = np.mean([row["label"] == ("=left", "right")[labels[row["index"]]] for row in rows[BAD:]])
    assert result["accuracy"]["value"] == pytest.approx(right) and right > 0.9
    assert result["outliers"]["count"] == sum(row["outlier"] for row in rows) == BAD
    assert sum(row["outlier"] for row in rows[:BAD]) > BAD / 2
    assert 0.0 < result["chi_square"] <= result["rho"] * (1 + 1e-9)
    assert pq.read_table(job.folder / "predictions.parquet").to_pylist() == rows
    with (job.folder / "predictions.csv").open(newline="") as file:
        assert {row["label"] for row in csv.DictReader(file)} == {"'=left", "right"}, "no cell is a formula"
    with Image.open(job.folder / "weights.png") as picture:
        assert picture.format == "PNG" and len(picture.getcolors(1 << 20)) > 8
    network = read_classifier(Checkpoint(job.folder))
    again = logits_of(network, torch.from_numpy(domains()[1])).argmax(dim=1).numpy()
    assert [("=left", "right")[label] for label in again] == [row["label"] for row in rows]


def test_labels_of_the_target_change_nothing_but_the_accuracy(job):
    labelled = adapt(job, AdaptParameters(target=job.target, **QUICK))
    bare = adapt(job, AdaptParameters(target=job.unlabelled, **QUICK))
    assert bare.pop("accuracy") is None and labelled.pop("accuracy") is not None
    assert bare == labelled


def test_a_stopped_job_goes_on_to_the_same_result(tmp_path, monkeypatch):
    monkeypatch.setattr("models.robust_ot.adapt.SAVE_EVERY", 40)
    source, target, labels = domains()
    results, reports = [], []
    for folder, stop_at in (("whole", None), ("stopped", "step 150 of 200")):
        job = UploadingJob(tmp_path / folder, seed=1, report=lambda *report: reports.append(report))
        job.dataset_id = job.upload("source", x=source, y=labels)
        parameters = AdaptParameters(target=job.upload("target", x=target), **QUICK)
        if stop_at is not None:
            progress = job.progress

            def stopping(fraction, stage, message="", progress=progress, stop_at=stop_at):
                progress(fraction, stage, message)
                if message == stop_at:
                    raise Cancelled

            job.progress = stopping
            with pytest.raises(Cancelled):
                adapt(job, parameters)
            job.progress = progress
            reports.clear()
        results.append(adapt(job, parameters))
    assert results[0] == results[1]
    assert reports[0][2] == "step 150 of 200", "what was done is not done again"
    assert [fraction for fraction, _, _ in reports] == sorted(fraction for fraction, _, _ in reports)


def test_pictures_of_another_size_are_fitted_to_the_source(tmp_path):
    rng = np.random.default_rng(0)
    job = UploadingJob(tmp_path)
    labels = np.arange(40) % 2
    grey = (rng.integers(0, 60, (40, 12, 12)) + 150 * labels[:, None, None]).astype(np.uint8)
    job.dataset_id = job.upload("grey", images=grey, labels=labels)
    target = job.upload("colour", images=np.repeat(grey.repeat(2, axis=1)[..., None], 3, axis=3))
    result = adapt(job, AdaptParameters(target=target, steps=60, source_steps=40, batch=16, solve_every=10))
    predicted = [row["label"] == result["predictions"][1]["label"] for row in result["predictions"]]
    assert np.mean(np.array(predicted) == (labels == 1)) > 0.9


def test_what_cannot_be_adapted_is_named(job):
    pictures = job.upload("pictures", images=np.zeros((10, 8, 8), np.uint8))
    longer = job.upload("longer", x=np.ones((10, 5), np.float32))
    for target, message in (
        ("ds_missing", "parameters.target: there is no data set"),
        (pictures, "parameters.target: it holds images"),
        (longer, "parameters.target: expected vectors of 3 numbers, got 5"),
    ):
        with pytest.raises(MethodError, match=message):
            adapt(job, AdaptParameters(target=target, **QUICK))
    job.dataset_id = job.unlabelled
    with pytest.raises(MethodError, match="no labels to learn"):
        adapt(job, AdaptParameters(target=job.target, **QUICK))


def test_claims_compare_the_arms_seed_by_seed():
    def rows(arm, values, **more):
        return [
            {"setting": "a to b", "arm": arm, "seed": seed, ACCURACY: value, **more}
            for seed, value in enumerate(values)
        ]

    bare, plain = rows(SOURCE_ONLY, [0.5, 0.6, 0.7]), rows(PLAIN, [0.7, 0.8, 0.9])
    (met,) = claims(bare + plain + rows(METHOD, [0.75, 0.85, 0.85], **{AUROC: 0.9}), Measured())
    assert "81.7% robust, 80.0% plain adversarial, 60.0% source only" in met
    assert "above plain for 2 of 3 seeds" in met and "is met" in met and "0.900" in met
    (missed,) = claims(bare + plain + rows(METHOD, [0.7, 0.8, 0.9], **{AUROC: 0.5}), Measured())
    assert "0 of 3 seeds" in missed and "missed (+0.0%)" in missed


@pytest.mark.parametrize("size", [28, 8])
def test_a_tenth_of_the_target_is_replaced_and_the_rest_untouched(size):
    target = Dataset("images", np.random.default_rng(0).integers(0, 256, (50, size, size, 1), dtype=np.uint8))
    pictures = centred(target)
    mixed, outlier = polluted(target, 3)
    assert outlier.sum() == 5 and (mixed[~outlier] == pictures[~outlier]).all()
    assert all((mixed[row] != pictures[row]).any() for row in np.flatnonzero(outlier))
    again, same = polluted(target, 3)
    assert (again == mixed).all() and (same == outlier).all()
