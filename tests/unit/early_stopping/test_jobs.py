"""The jobs: robust training and the report on noise, on the real data set store."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from models.core.checkpoint import Checkpoint
from models.core.classifiers import logits_of, read_classifier
from models.core.dataset import Dataset
from models.core.early_stopping import estimated_clean_accuracy
from models.core.inputs import InputError
from models.core.method import MethodError
from models.core.noise import corrupt_labels
from models.core.run import Cancelled
from models.core.trainer_options import EarlyStopping
from models.early_stopping.clusters import clusterability, label_energy, unit_rows
from models.early_stopping.jobs import answer, report, robust_train
from models.early_stopping.schema import PRESETS, Config, NoiseRobustnessReport, Params, RobustTrain
from models.early_stopping.watching import Labelled
from tests.unit.local_job import LocalJob

ROWS = 600


class PublishingJob(LocalJob):
    """Keeps what is published."""

    published = None

    def publish(self, slug, checkpoint, name=None):
        if name == "taken":
            raise ValueError(f"{slug}@taken is there already")
        self.published = checkpoint
        return f"{slug}@{name or 'job'}"


def clouds(rate):
    generator = np.random.default_rng(0)
    truth = np.arange(ROWS) % 4
    vectors = generator.normal(size=(ROWS, 20)) + 3 * np.eye(20)[truth]
    labels = corrupt_labels(truth, 4, kind="uniform", rate=rate, seed=1)
    return vectors.astype(np.float32), labels, truth


@pytest.fixture(scope="module")
def upload(tmp_path_factory):
    """Four clouds of vectors of which two fifths are mislabeled."""
    vectors, labels, _ = clouds(0.4)
    path = tmp_path_factory.mktemp("upload") / "clouds.npz"
    np.savez(path, x=vectors, y=labels)
    return path


STOPPING = EarlyStopping(validation_share=0.2, continue_to_end=True, noise_rate=0.4)
TRAIN = RobustTrain(epochs=25, batch_size=32, early_stopping=STOPPING, test_share=0.2, version="clean")


def test_robust_training_publishes_the_stopped_weights(upload, tmp_path):
    job = PublishingJob(tmp_path, upload=upload)
    result = robust_train(job, TRAIN)
    assert result["model"] == "early-stopping@clean"
    stopping = result["stopping"]
    assert 2 <= stopping["epoch"] < stopping["stopped_at"] <= 25 == len(stopping["curve"])
    row = stopping["curve"][stopping["epoch"] - 1]
    assert result["noisy_validation_accuracy"] == row["validation_accuracy"]
    assert result["relative_distance"] == row["relative_distance"]
    clean = estimated_clean_accuracy(row["validation_accuracy"], 0.4, 4)
    assert result["estimated_clean_accuracy"] == pytest.approx(clean)
    assert result["final_vs_stopped"]["stopped"] == result["accuracy"] > result["final_vs_stopped"]["final"]
    vectors, labels, truth = clouds(0.4)
    predicted = (
        logits_of(read_classifier(Checkpoint(job.published.folder)), torch.from_numpy(vectors)).argmax(1).numpy()
    )
    wrong = labels != truth
    assert (predicted == truth).mean() > 0.8 and (predicted == labels)[wrong].mean() < 0.2
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert set(job.metrics) == {"loss", "validation_accuracy", "relative_distance"}


def test_without_going_on_there_is_nothing_to_compare(upload, tmp_path):
    parameters = RobustTrain(epochs=12, batch_size=64, early_stopping=EarlyStopping(rule="fixed", epochs=2))
    result = robust_train(PublishingJob(tmp_path, upload=upload), parameters)
    assert result["final_vs_stopped"] is None and result["stopping"]["epoch"] == 2
    assert result["noisy_validation_accuracy"] is None is result["estimated_clean_accuracy"]


def test_a_taken_name_and_a_job_without_data_are_refused(upload, tmp_path):
    short = RobustTrain(epochs=1, version="taken", early_stopping=EarlyStopping(rule="fixed", epochs=1))
    with pytest.raises(MethodError, match="version: early-stopping@taken is there already"):
        robust_train(PublishingJob(tmp_path / "a", upload=upload), short)
    with pytest.raises(MethodError, match="version: nothing serves versions"):
        robust_train(LocalJob(tmp_path / "b", upload=upload), short)
    with pytest.raises(MethodError, match="dataset"):
        robust_train(LocalJob(tmp_path / "c"), short)


REPORT = NoiseRobustnessReport(
    inject=[0, 0.4],
    spectrum_samples=100,
    config=Config(epochs=12, batch_size=32, early_stopping=EarlyStopping(validation_share=0.3, patience=3)),
)


@pytest.fixture(scope="module")
def right(tmp_path_factory):
    """The same clouds with the true labels."""
    vectors, _, truth = clouds(0.4)
    path = tmp_path_factory.mktemp("upload") / "right.npz"
    np.savez(path, x=vectors, y=truth)
    return path


def test_the_report_tells_what_is_fitted_when(right, tmp_path):
    job = LocalJob(tmp_path, upload=right)
    result = report(job, REPORT)
    given, injected = result["rows"]
    assert (given["injected"], injected["injected"]) == (0, 0.4)
    assert len(given["curve"]) == len(injected["curve"]) == 12
    assert "fit_corrupt" not in given["curve"][0]
    stopped, last = injected["curve"][injected["epoch"] - 1], injected["curve"][-1]
    assert stopped["fit_corrupt"] < last["fit_corrupt"] and stopped["true_accuracy"] > last["true_accuracy"]
    assert stopped["margin_0.1"] < stopped["margin_0.5"] < stopped["margin_0.9"]
    assert injected["cost"] == pytest.approx(stopped["validation_accuracy"] - last["validation_accuracy"])
    assert result["answer"] == answer(given)
    shares = {row["rank"]: row for row in result["spectrum"]["rows"]}
    assert shares[8]["labels"] > 2 * shares[8]["noise"]
    assert Image.open(tmp_path / "robustness.png").size[0] > 700
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_a_cancelled_report_stops(right, tmp_path):
    def cancel(fraction, stage, message):
        raise Cancelled

    with pytest.raises(Cancelled):
        report(LocalJob(tmp_path, upload=right, report=cancel), REPORT)


def test_the_answer_in_one_line():
    row = {"epoch": 3, "cost": 0.123, "curve": [None] * 9}
    assert answer(row) == (
        "stop near epoch 3: the epochs after it cost 12.3 points of accuracy on held-out labels, as they are"
    )
    assert answer(row | {"cost": 0.0}) == "train all 9 epochs: the last one is as good as epoch 3"


def test_separated_clusters_are_told_from_a_cloud():
    generator = np.random.default_rng(0)
    centres = np.eye(10)[:6]
    tight = centres[np.arange(120) % 6] + 0.01 * generator.normal(size=(120, 10))
    found = clusterability(unit_rows(tight), 3, 0)
    assert found["clusters"] == 6 and found["separated"] and found["radius_95"] < 0.1 < found["least_gap"]
    assert not clusterability(unit_rows(generator.normal(size=(120, 10))), 3, 0)["separated"]


def test_labels_of_clusters_live_in_the_leading_eigenvectors_and_noise_does_not():
    generator = np.random.default_rng(0)
    cluster = np.arange(200) % 5
    rows = unit_rows(np.eye(12)[cluster] + 0.01 * generator.normal(size=(200, 12)))
    labels = cluster % 2
    noisy = corrupt_labels(labels, 2, kind="uniform", rate=0.3, seed=0)
    first = label_energy(rows, labels, noisy, 2, 0)["rows"]
    by_rank = {row["rank"]: row for row in first}
    assert by_rank[10]["labels"] > 0.95 and by_rank[10]["noise"] < 0.5
    assert by_rank[10]["eigenvalues"] > 0.95
    assert "noise" not in label_energy(rows, labels, labels, 2, 0)["rows"][0]


def test_what_is_known_to_be_wrong():
    labels, truth = torch.tensor([0, 1, 1]), torch.tensor([0, 1, 0])
    inputs = torch.zeros(3, 2)
    assert Labelled(inputs, labels, truth).wrong.tolist() == [False, False, True]
    assert Labelled(inputs, labels, labels).wrong is None is Labelled(inputs, labels).wrong


def test_few_samples_to_hold_out_are_refused(tmp_path):
    path = tmp_path / "few.npz"
    np.savez(path, x=np.eye(4, dtype=np.float32), y=np.array([0, 0, 1, 1]))
    with pytest.raises(MethodError, match="validation_share: it holds out no sample"):
        report(LocalJob(tmp_path, upload=path), NoiseRobustnessReport(inject=[0]))


def test_parameters():
    assert PRESETS["paper"].encoder == "two-conv" and PRESETS["cpu"].early_stopping.rule == "noisy-validation"
    bad = [
        (RobustTrain, {"early_stopping": None}, "early_stopping"),
        (RobustTrain, {"version": "no/slash"}, "version"),
        (NoiseRobustnessReport, {"inject": [0.95]}, "inject"),
        (NoiseRobustnessReport, {"inject": [0.1, 0.1]}, "inject"),
        (NoiseRobustnessReport, {"config": {"early_stopping": {"rule": "fixed", "epochs": 2}}}, "noisy-validation"),
        (Config, {"early_stopping": {"rule": "distance"}}, "distance_budget"),
    ]
    for model, fields, named in bad:
        with pytest.raises(ValueError, match=named):
            model.model_validate(fields)


def texts(count=600):
    """Short texts about three trades, a tenth of them under a wrong one."""
    words = (["bread", "flour", "oven", "dough"], ["wood", "saw", "plank", "nail"], ["wool", "yarn", "loom", "cloth"])
    generator = np.random.default_rng(0)
    truth = np.arange(count) % 3
    lines = [" ".join(generator.choice([*words[label], "the", "and"], 8)) for label in truth]
    labels = corrupt_labels(truth, 3, kind="uniform", rate=0.1, seed=1)
    return Dataset("text", lines, labels, ["baker", "joiner", "weaver"]), truth


def test_texts_are_trained_on_reported_and_answered(tmp_path):
    dataset, truth = texts()
    job = PublishingJob(tmp_path)
    job.dataset_id, job.dataset = "ds_texts", lambda _: dataset
    config = Config(epochs=10, batch_size=32, early_stopping=EarlyStopping(validation_share=0.2))
    row = report(job, NoiseRobustnessReport(inject=[0], config=config, spectrum_samples=60))["rows"][0]
    assert len(row["curve"]) == 10 and row["validation_samples"] == 120
    job = PublishingJob(tmp_path / "training")
    job.dataset_id, job.dataset = "ds_texts", lambda _: dataset
    robust_train(job, RobustTrain(**config.model_dump()))
    checkpoint = Checkpoint(job.published.folder)
    assert checkpoint.config.input.kind == "text" and checkpoint.config.data_sha256 == dataset.sha256
    method = job.registry["early-stopping"].method.load(checkpoint, torch.device("cpu"))
    answers = np.stack(method.predict(dataset.inputs, Params()))
    assert answers.shape == (600, 3) and (answers.argmax(1) == truth).mean() > 0.8
    network, loss = method.objective(dataset)
    assert loss().item() > 0 and all(weight.requires_grad for weight in network.parameters())
    found = job.registry["early-stopping"].method.evaluate(checkpoint, LocalJob(tmp_path / "evaluate"), dataset)
    assert found.figures[0].name == "accuracy"
    vectors = replace(dataset, kind="vectors", inputs=np.zeros((600, 128), dtype=np.float32))
    with pytest.raises(InputError, match="holds vectors, not text"):
        method.objective(vectors)
