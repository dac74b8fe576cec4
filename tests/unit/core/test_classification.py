"""Classifiers of pictures and vectors: networks, specs, training on three parts of the data, figures, refusals."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from models.core.checkpoint import Checkpoint, CheckpointError
from models.core.classification import ClassifierMethod, train_classifier, user_figures
from models.core.classifiers import (
    Classifier,
    as_tensor,
    build_classifier,
    input_spec,
    logits_of,
    match_labels,
    read_classifier,
)
from models.core.dataset import Dataset
from models.core.early_stopping import estimated_clean_accuracy
from models.core.inputs import InputError, VectorSpec
from models.core.method import MethodError
from models.core.noise import corrupt_labels
from models.core.run import LocalRun
from models.core.trainer_options import ClassifierConfig, EarlyStopping, SharpnessAware

DATA = Path(__file__).parents[2] / "data"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def pictures():
    with np.load(DATA / "fashion-mnist-600.npz") as archive:
        return Dataset(
            "images", archive["images"][..., None], archive["labels"].astype(np.int64), archive["class_names"].tolist()
        )


@pytest.fixture(scope="module")
def digits():
    table = np.loadtxt(DATA / "digits-8x8-600.csv", delimiter=",", skiprows=1, quotechar='"')
    names = [str(digit) for digit in range(10)]
    return Dataset("vectors", table[:, 1:].astype(np.float32), table[:, 0].astype(np.int64), names)


class Plain(ClassifierMethod):
    """Without the proof, which is not tested here."""

    @classmethod
    def evaluate(cls, checkpoint, run, dataset=None):
        raise NotImplementedError


def train(dataset, folder, **config):
    return train_classifier("plain", dataset, ClassifierConfig(**config), LocalRun(folder, seed=2))


def figure(checkpoint, name, subject="method"):
    found = [f.value for f in checkpoint.figures.figures if (f.name, f.subject) == (name, subject)]
    return found[0]


@pytest.mark.parametrize(
    ("architecture", "weights"),
    [("mlp", 269_322), ("two-conv", 4_795_914), ("wrn-10-2", 303_418)],
)
def test_sizes_of_networks(architecture, weights):
    moments = torch.zeros(1, 1, 1), torch.ones(1, 1, 1)
    network = Classifier(architecture, (1, 28, 28), 10, *moments)
    assert sum(p.numel() for p in network.parameters()) == weights
    assert network(torch.zeros(2, 1, 28, 28, dtype=torch.uint8)).shape == (2, 10)


def test_the_published_wide_network_has_its_size():
    with torch.device("meta"):
        network = Classifier("wrn-28-10", (3, 32, 32), 10, torch.zeros(3, 1, 1), torch.ones(3, 1, 1))
    assert round(sum(p.numel() for p in network.parameters()) / 1e6, 1) == 36.5  # Zagoruyko & Komodakis, table 4


def test_inputs_are_standardised_by_their_moments():
    torch.manual_seed(0)
    inputs = torch.randn(500, 3) * torch.tensor([1.0, 20.0, 0.0]) + torch.tensor([5.0, 0.0, 7.0])
    network = build_classifier("mlp", inputs, 2)
    standard = (inputs - network.mean) / network.std
    assert standard.mean(0).abs().max() < 1e-5 and torch.allclose(standard.std(0)[:2], torch.ones(2), atol=1e-2)
    assert torch.isfinite(network(inputs)).all()  # a constant feature does no harm


def test_specs_of_pictures_and_vectors(digits):
    sizes = [(100, 50, 1), (200, 100, 3), (100, 50, 1)]
    images = [np.zeros(size, dtype=np.uint8) for size in sizes]
    assert input_spec(Dataset("images", images), 64).shape == (64, 32, 3)
    assert input_spec(Dataset("images", images[:1]), 200).shape == (100, 50, 1)
    assert input_spec(digits, 64) == VectorSpec(size=64)
    with pytest.raises(MethodError, match="pictures or vectors are needed, it holds text"):
        input_spec(Dataset("text", ["a"]), 64)


def test_vectors_that_do_not_fit_are_named(digits):
    with pytest.raises(MethodError, match="expected vectors of 3 numbers, got 64"):
        as_tensor(digits, VectorSpec(size=3))
    broken = digits.inputs.copy()
    broken[17, 3] = np.inf
    with pytest.raises(MethodError, match="row 17 holds NaN or infinite"):
        as_tensor(replace(digits, inputs=broken), VectorSpec(size=64))
    with pytest.raises(InputError, match="holds vectors, not images"):
        as_tensor(digits, input_spec(Dataset("images", np.zeros((1, 4, 4, 1), dtype=np.uint8)), 64))


def test_labels_are_matched_by_name():
    dataset = Dataset("text", ["x"] * 4, np.array([2, 0, 2, 0]), ["b", "unused", "a"])
    assert match_labels(dataset, ["a", "b"]).tolist() == [0, 1, 0, 1]
    with pytest.raises(MethodError, match="class 'a' is not one of"):
        match_labels(dataset, ["b", "unused"])


@pytest.mark.parametrize(("kind", "bar"), [("pictures", 0.7), ("digits", 0.9)])
def test_trains_predicts_and_offers_its_loss(kind, bar, tmp_path, request):
    dataset = request.getfixturevalue(kind)
    checkpoint = train(dataset, tmp_path, epochs=8, batch_size=32, test_share=0.2, learning_rate=0.05)
    assert figure(checkpoint, "accuracy") >= bar
    method = Plain.load(Checkpoint(checkpoint.folder), CPU)
    inputs = dataset.inputs[:7]
    with torch.inference_mode():
        together = np.stack(method.predict(inputs, None))
        alone = np.stack([method.predict(inputs[i : i + 1], None)[0] for i in range(7)])
    assert together.shape == (7, 10) and together.dtype == np.float32
    np.testing.assert_allclose(together.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(alone, together, atol=1e-5)
    module, loss = method.objective(dataset)
    value = loss()
    probability = np.stack(method.predict(dataset.inputs, None))[np.arange(600), dataset.labels]
    assert float(value.detach()) == pytest.approx(-np.log(probability).mean(), rel=1e-4)
    gradients = torch.autograd.grad(value, list(module.parameters()))
    assert all(torch.isfinite(g).all() for g in gradients) and not module.training
    measured = {f.name: f.value for f in user_figures(checkpoint, dataset, "cpu")}
    assert measured["cross-entropy"] == pytest.approx(float(value.detach()), rel=1e-5)


def test_the_same_seed_gives_the_same_weights(digits, tmp_path):
    first, again = (train(digits, tmp_path / name, epochs=1).config for name in "ab")
    other = train(digits, tmp_path / "c", epochs=1, sharpness_aware=SharpnessAware(kind="asam")).config
    assert first.weights_sha256 == again.weights_sha256 != other.weights_sha256
    assert other.outputs["perturbed_steps"] == other.outputs["steps"] > 0 == first.outputs["perturbed_steps"]


def test_stopping_is_told_in_figures(digits, tmp_path):
    truth = digits.require_labels()
    noisy = replace(digits, labels=corrupt_labels(truth, 10, kind="uniform", rate=0.3, seed=1))
    stopping = EarlyStopping(patience=3, validation_share=0.2, continue_to_end=True, noise_rate=0.3)
    lines = []
    config = ClassifierConfig(epochs=25, batch_size=16, learning_rate=0.05, early_stopping=stopping)
    checkpoint = train_classifier("plain", noisy, config, LocalRun(tmp_path, seed=2, log=lines.append))
    facts, curve = checkpoint.config.outputs, checkpoint.figures.tables["curve"]
    assert 2 <= facts["epoch"] < facts["stopped_at"] < 25 == len(curve)
    assert "109 samples choose the epoch" in lines[0]  # a fifth of nine tenths, by class
    row = curve[facts["epoch"] - 1]
    assert figure(checkpoint, "noisy-validation accuracy") == row["validation_accuracy"]
    clean = estimated_clean_accuracy(row["validation_accuracy"], 0.3, 10)
    assert figure(checkpoint, "estimated clean accuracy") == pytest.approx(clean)
    assert figure(checkpoint, "relative distance") == row["relative_distance"] < curve[-1]["relative_distance"]
    assert figure(checkpoint, "accuracy") > figure(checkpoint, "accuracy", "last epoch")
    network = read_classifier(checkpoint)
    right = logits_of(network, torch.from_numpy(noisy.vectors())).argmax(1).numpy() == truth
    assert right.mean() > 0.8  # against the true labels, which training never saw


@pytest.mark.parametrize(
    ("change", "config", "message"),
    [
        ({"labels": None}, {}, "no labels to learn"),
        ({"labels": np.zeros(600, dtype=np.int64)}, {}, "at least two classes"),
        ({}, {"encoder": "wrn-10-2"}, "encoder: wrn-10-2 takes pictures, the data set holds vectors"),
    ],
)
def test_what_does_not_fit_is_refused(digits, tmp_path, change, config, message):
    with pytest.raises(MethodError, match=message):
        train(replace(digits, **change), tmp_path, **config)


def test_a_noise_rate_that_says_nothing_is_refused_before_training(digits, tmp_path):
    stopping = EarlyStopping(noise_rate=0.9)
    with pytest.raises(MethodError, match="noise_rate"):
        train(digits, tmp_path, epochs=1, early_stopping=stopping)


def test_pictures_too_small_for_a_network_are_refused(tmp_path):
    images = np.zeros((20, 5, 5, 1), dtype=np.uint8)
    images[::2] = 255
    dataset = Dataset("images", images, np.arange(20) % 2, ["a", "b"])
    with pytest.raises(MethodError, match="two-conv takes pictures of 6 x 6"):
        train(dataset, tmp_path, epochs=1, encoder="two-conv")


def test_damaged_checkpoints_are_named(digits, tmp_path):
    checkpoint = train(digits, tmp_path, epochs=1)
    path = checkpoint.folder / "config.json"
    config = json.loads(path.read_text())
    for change, message in (({"outputs": {}}, "no architecture"), ({"class_names": ["one", "two"]}, "shape")):
        path.write_text(json.dumps(config | change))
        with pytest.raises(CheckpointError, match=message):
            Plain.load(Checkpoint(checkpoint.folder), CPU)


def test_loss_is_the_mean_cross_entropy_of_all_rows(digits, tmp_path):
    method = Plain.load(train(digits, tmp_path, epochs=1), CPU)
    _, loss = method.objective(digits.select(range(50)))
    logits = method.network(torch.from_numpy(digits.inputs[:50]))
    assert torch.allclose(loss(), F.cross_entropy(logits, torch.from_numpy(digits.labels[:50])))
