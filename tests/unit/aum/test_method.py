"""The classifier: training on pictures, vectors and text, prediction, damaged checkpoints, evaluation."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from models.aum.cells import cells_of
from models.aum.findings import by_setting, summarise
from models.aum.method import Aum
from models.aum.schema import PRESETS, Config, MislabeledDetection, Params
from models.core.checkpoint import Checkpoint, CheckpointError
from models.core.dataset import Dataset
from models.core.method import MethodError
from models.core.registry import Registry
from models.core.run import LocalRun

DATA = Path(__file__).parents[2] / "data"
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def pictures():
    with np.load(DATA / "fashion-mnist-600.npz") as archive:
        return Dataset(
            "images", archive["images"][..., None], archive["labels"].astype(np.int64), archive["class_names"].tolist()
        )


@pytest.fixture(scope="module")
def texts():
    lines = [json.loads(line) for line in (DATA / "docstrings-300.jsonl").read_text().splitlines()]
    names = sorted({line["label"] for line in lines})
    labels = np.array([names.index(line["label"]) for line in lines])
    return Dataset("text", [line["text"] for line in lines], labels, names)


@pytest.fixture(scope="module")
def digits():
    table = np.loadtxt(DATA / "digits-8x8-600.csv", delimiter=",", skiprows=1, quotechar='"')
    names = [str(digit) for digit in range(10)]
    return Dataset("vectors", table[:, 1:].astype(np.float32), table[:, 0].astype(np.int64), names)


def trained(dataset, tmp_path, **config):
    return Aum.train(dataset, Config(**config), LocalRun(tmp_path, seed=2))


@pytest.mark.parametrize(("kind", "bar"), [("pictures", 0.7), ("digits", 0.85), ("texts", 0.6)])
def test_trains_and_predicts_probabilities(kind, bar, tmp_path, request):
    dataset = request.getfixturevalue(kind)
    checkpoint = trained(dataset, tmp_path, epochs=8, validation_share=0.2)
    held_out = checkpoint.figures.figures[0]
    assert held_out.name == "accuracy" and held_out.value >= bar
    method = Aum.load(Checkpoint(checkpoint.folder), CPU)
    inputs = dataset.inputs[:7]
    together = np.stack(method.predict(inputs, Params()))
    assert together.shape == (7, len(dataset.class_names)) and together.dtype == np.float32
    np.testing.assert_allclose(together.sum(axis=1), 1, atol=1e-6)
    alone = np.stack([method.predict(inputs[i : i + 1], Params())[0] for i in range(7)])
    np.testing.assert_allclose(alone, together, atol=1e-5)
    assert (together.argmax(axis=1) == dataset.labels[:7]).mean() >= 0.5


def test_training_is_repeatable_and_leaves_out_what_is_dropped(pictures, tmp_path):
    def weights(folder, **config):
        return trained(pictures, tmp_path / folder, epochs=1, **config).config

    plain, again = weights("a"), weights("b")
    dropped = weights("c", drop_indices=[5, 0, 599])
    assert plain.weights_sha256 == again.weights_sha256 != dropped.weights_sha256
    assert dropped.outputs["dropped_samples"] == 3 and "drop_indices" not in dropped.config
    selected = pictures.select([i for i in range(600) if i not in (0, 5, 599)])
    same = trained(selected, tmp_path / "d", epochs=1).config
    assert same.weights_sha256 == dropped.weights_sha256


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"drop_indices": [600]}, "drop_indices: 600 is not a position in 0..599"),
        ({"drop_indices": list(range(60, 600))}, "at least two classes"),
    ],
)
def test_training_refuses_what_does_not_fit(pictures, tmp_path, change, message):
    first_class = np.argsort(pictures.labels, kind="stable")
    with pytest.raises(MethodError, match=message):
        trained(pictures.select(first_class), tmp_path, **change)


def test_options_of_the_trainer_reach_the_version(digits, tmp_path):
    stopping = {"patience": 1, "min_epochs": 1, "smoothing": 1, "continue_to_end": True, "noise_rate": 0.1}
    options = {"sharpness_aware": {"kind": "asam"}, "early_stopping": stopping}
    checkpoint = trained(digits, tmp_path, epochs=6, **options)
    config, figures = checkpoint.config, checkpoint.figures
    assert config.config["sharpness_aware"]["kind"] == "asam"
    assert [row["epoch"] for row in figures.tables["curve"]] == [1, 2, 3, 4, 5, 6]
    chosen = config.outputs["epoch"]
    values = {(figure.name, figure.subject): figure for figure in figures.figures}
    accuracy = values["noisy-validation accuracy", "method"]
    assert accuracy.value == figures.tables["curve"][chosen - 1]["validation_accuracy"] > 0.8
    assert accuracy.setting == f"epoch {chosen}, rule noisy-validation"
    assert values["estimated clean accuracy", "method"].value >= accuracy.value
    assert values["accuracy", "last epoch"].setting == "epoch 6"
    # 60 samples measure the accuracy, 54 choose the epoch, and the rest is trained on.
    assert values["training accuracy", "method"].setting in {f"{count} samples" for count in range(482, 491)}


@pytest.mark.parametrize(
    ("stopping", "message"),
    [({"noise_rate": 0.9}, "early_stopping.noise_rate"), ({"validation_share": 0.02}, "it holds out no sample")],
)
def test_early_stopping_that_can_say_nothing_is_refused(digits, tmp_path, stopping, message):
    with pytest.raises(MethodError, match=message):
        trained(digits.select(range(100)), tmp_path, early_stopping=stopping)


def test_training_refuses_unlabelled_or_broken_data(digits, tmp_path):
    with pytest.raises(MethodError, match="no labels"):
        trained(Dataset("vectors", digits.inputs), tmp_path)
    broken = digits.inputs.copy()
    broken[17, 3] = np.nan
    with pytest.raises(MethodError, match="row 17 holds NaN"):
        trained(Dataset("vectors", broken, digits.labels, digits.class_names), tmp_path)
    with pytest.raises(MethodError, match="encoder: small-cnn takes images"):
        trained(digits, tmp_path, encoder="small-cnn")


def test_pictures_of_mixed_sizes_and_colours_are_fitted(tmp_path):
    generator = np.random.default_rng(0)
    sizes = [(40 + i % 3, 90, 3 if i % 2 else 1) for i in range(40)]
    images = [generator.integers(0, 256, size, dtype=np.uint8) for size in sizes]
    dataset = Dataset("images", images, np.arange(40) % 2, ["a", "b"])
    checkpoint = trained(dataset, tmp_path, epochs=1, image_size=32)
    spec = checkpoint.config.input
    assert (spec.height, spec.width, spec.channels) == (15, 32, 3)
    predicted = Aum.load(checkpoint, CPU).predict(dataset.images(spec), Params())
    assert len(predicted) == 40


@pytest.mark.parametrize("encoder", ["resnet32", "mlp"])
def test_other_encoders_learn_pictures(pictures, tmp_path, encoder):
    small = pictures.select(np.arange(0, 600, 2))
    checkpoint = trained(small, tmp_path, epochs=6, batch_size=16, encoder=encoder, image_size=14)
    assert checkpoint.figures.figures[-1].value > 0.3
    fitted = small.images(checkpoint.config.input)[:2]
    assert len(Aum.load(checkpoint, CPU).predict(fitted, Params())[0]) == 10


def test_resnet32_has_the_published_size():
    from models.aum.network import ResNet

    network = ResNet(3, 10)
    layers = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)]
    assert len(layers) == 32
    assert sum(p.numel() for p in network.parameters()) == 464_154  # 0.46 M in He et al., table 6


def test_damaged_checkpoints_are_named(pictures, tmp_path):
    checkpoint = trained(pictures, tmp_path, epochs=1)
    path = checkpoint.folder / "config.json"
    config = json.loads(path.read_text())
    for change, message in (
        ({"outputs": {}}, "no architecture"),
        ({"class_names": ["one", "two"]}, "shape"),
    ):
        path.write_text(json.dumps(config | change))
        with pytest.raises(CheckpointError, match=message):
            Aum.load(Checkpoint(checkpoint.folder), CPU)


def test_evaluates_a_users_data(pictures, texts, tmp_path):
    for name, dataset in (("pictures", pictures), ("texts", texts)):
        run = LocalRun(tmp_path / name, seed=1)
        checkpoint = Aum.train(dataset, Config(epochs=3), run)
        figures = {figure.name: figure.value for figure in Aum.evaluate(checkpoint, run, dataset).figures}
        assert figures["accuracy"] > 1.5 / len(dataset.class_names)
        assert 0 < figures["cross-entropy"] < 3
    with pytest.raises(MethodError, match="class 'T-shirt/top' is not one of the checkpoint's"):
        Aum.evaluate(checkpoint, run, Dataset("text", ["x"] * 600, pictures.labels, pictures.class_names))


def test_the_card_names_what_the_schema_has():
    entry = Registry()["aum"]
    assert entry.method is Aum and set(entry.presets) == set(PRESETS) == {"cpu", "paper"}
    kind = entry.card.jobs[0]
    assert entry.model(kind.parameters) is MislabeledDetection
    assert entry.job_function(kind).__name__ == "run"
    assert (kind.page, kind.filters) == ("ranking", {"class": "label", "suspect": "suspect"})


def test_parameters_of_the_job():
    defaults = MislabeledDetection()
    assert (defaults.epochs, defaults.skip_epochs, defaults.folds, defaults.percentile) == (8, 1, 2, 99)
    paper = MislabeledDetection(preset="paper", batch_size=32)
    assert (paper.epochs, paper.augment, paper.batch_size) == (150, True, 32)
    for bad in (
        {"skip_epochs": 8},
        {"threshold_samples": 9},
        {"folds": 6},
        {"vote": "some"},
        {"encoder": "Not A Model"},
        {"trusted_test": "x"},
        {"unknown": 1},
    ):
        with pytest.raises(ValueError, match=next(iter(bad))):
            MislabeledDetection(**bad)


def test_the_stored_proof_is_complete_and_its_summary_reproducible():
    shipped = Registry()["aum"].shipped()
    rows = shipped.figures.tables["proof"]
    seeds = {setting: len(chosen) for setting, chosen in by_setting(rows).items()}
    assert {f"digits, {cell.setting.split(', ')[1]}, N=8,000" for cell in cells_of("digits", 8000, [0])} <= seeds.keys()
    assert all(count == (1 if setting.endswith("N=20,000") else 3) for setting, count in seeds.items())
    again = summarise(rows)
    assert again.claims == shipped.figures.claims
    stored = {(f.name, f.subject, f.setting): f.value for f in shipped.figures.figures}
    assert all(stored[f.name, f.subject, f.setting] == pytest.approx(f.value) for f in again.figures)
    for row in rows:
        if row["noise"] != "none":
            assert row["auroc_aum"] > max(row["auroc_loss"], row["auroc_loss_early"], row["auroc_confident"])
        if "accuracy_oracle" in row:
            assert row["accuracy_aum"] > max(row["accuracy_all"], row["accuracy_random"])


def test_the_shipped_classifier_knows_clothes(pictures):
    checkpoint = Registry()["aum"].shipped()
    predicted = np.stack(Aum.load(checkpoint, CPU).predict(pictures.inputs, Params())).argmax(axis=1)
    names = [checkpoint.config.class_names[index] for index in predicted]
    given = [pictures.class_names[label] for label in pictures.labels]
    assert np.mean([a == b for a, b in zip(names, given, strict=True)]) > 0.85
