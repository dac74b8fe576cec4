"""The supervised trainer: what it learns, that it is resumable bit for bit, cancelled, and watched."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from models.core.classifiers import build_classifier, logits_of
from models.core.run import Cancelled, LocalRun
from models.core.supervised import DivergedError, Recipe, fit_classifier, shift_and_mirror
from models.core.trainer_options import EarlyStopping, SharpnessAware


@pytest.fixture(scope="module")
def clouds():
    """Two clouds of vectors, 300 rows, of which a fifth is held out."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(300) % 2
    inputs = torch.randn(300, 6, generator=generator) + 1.5 * labels[:, None]
    return (inputs[:240], labels[:240]), (inputs[240:], labels[240:])


RECIPE = Recipe(epochs=6, batch_size=50, learning_rate=0.05)
SAM = SharpnessAware(kind="sam", rho=0.1)
OPTIONS = [
    {},
    {"sharpness_aware": SAM},
    {"sharpness_aware": SharpnessAware(kind="sam", rho=0.1, every=3)},
    {"optimizer": "adam", "learning_rate": 1e-2, "early_stopping": EarlyStopping(patience=4)},
    {"sharpness_aware": SAM, "early_stopping": EarlyStopping(rule="label-wave", patience=4)},
    {"optimizer": "gd", "cosine": False},
]


def fit(clouds, run, recipe=RECIPE, **more):
    (inputs, labels), validation = clouds
    return fit_classifier(
        lambda: build_classifier("mlp", inputs, 2), inputs, labels, recipe, run, seed=3, validation=validation, **more
    )


def equal(one, other):
    pairs = zip(one.state_dict().items(), other.state_dict().items(), strict=True)
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


class Killed(Exception):
    pass


class KillableRun(LocalRun):
    """Dies while the given epoch is trained."""

    def __init__(self, folder, epoch, error=Killed):
        super().__init__(folder)
        self.fraction, self.error = epoch / RECIPE.epochs, error

    def progress(self, fraction, stage, message=""):
        if fraction > self.fraction:
            raise self.error


def test_learns_and_reports(clouds, tmp_path):
    reports = []
    run = LocalRun(tmp_path, report=lambda *report: reports.append(report))
    fitted = fit(clouds, run, observe=lambda network: {"seen": float(len(list(network.parameters())))})
    inputs, labels = clouds[1]
    assert float((logits_of(fitted.network, inputs).argmax(1) == labels).double().mean()) > 0.9
    assert [row["epoch"] for row in fitted.curve] == [1, 2, 3, 4, 5, 6] and fitted.curve[0]["seen"] == 6
    assert run.metrics["loss"] == [(row["epoch"], row["loss"]) for row in fitted.curve]
    assert fitted.curve[-1]["loss"] < fitted.curve[0]["loss"]
    fractions = [fraction for fraction, _, _ in reports]
    assert fractions == sorted(fractions) and fractions[0] == 0 and reports[-1][2] == "epoch 6 of at most 6"
    assert (fitted.epoch, fitted.steps, fitted.perturbed_steps, fitted.stopped_at) == (6, 30, 0, None)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_killed_and_resumed_equals_undisturbed(clouds, tmp_path, options):
    recipe = replace(RECIPE, **options)
    whole = fit(clouds, LocalRun(tmp_path / "whole"), recipe)
    with pytest.raises(Killed):
        fit(clouds, KillableRun(tmp_path / "killed", 3.5), recipe)
    torch.rand(5)  # whatever else happens to the global generator
    again = fit(clouds, LocalRun(tmp_path / "killed"), recipe)
    assert equal(whole.network, again.network) and whole.curve == again.curve
    assert (whole.epoch, whole.steps, whole.perturbed_steps) == (again.epoch, again.steps, again.perturbed_steps)


def test_a_convolutional_network_resumes_bit_for_bit(tmp_path):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (64, 1, 12, 12), generator=generator, dtype=torch.uint8)
    labels = torch.arange(64) % 2
    recipe = Recipe(epochs=6, batch_size=16, shift=1, sharpness_aware=SAM, clip_norm=1.0)

    def train(run):
        return fit_classifier(
            lambda: build_classifier("wrn-10-2", images, 2), images, labels, recipe, run, seed=1
        ).network  # fmt: skip

    whole = train(LocalRun(tmp_path / "whole"))
    with pytest.raises(Killed):
        train(KillableRun(tmp_path / "killed", 2.5))
    assert equal(whole, train(LocalRun(tmp_path / "killed")))


def test_training_leaves_the_global_generator_alone(clouds, tmp_path):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    fit(clouds, LocalRun(tmp_path))
    assert torch.equal(before, torch.get_rng_state())


def test_a_cancelled_training_stops(clouds, tmp_path):
    with pytest.raises(Cancelled):
        fit(clouds, KillableRun(tmp_path, 1.5, Cancelled))


def test_sharpness_aware_steps_are_counted_and_change_the_weights(clouds, tmp_path):
    plain = fit(clouds, LocalRun(tmp_path / "a"))
    late = replace(RECIPE, sharpness_aware=SharpnessAware(kind="sam", rho=0.1, start_fraction=0.5))
    half = fit(clouds, LocalRun(tmp_path / "b"), late)
    zero = fit(
        clouds, LocalRun(tmp_path / "c"), replace(RECIPE, sharpness_aware=SharpnessAware(kind="sam", rho=0))
    )  # fmt: skip
    assert (half.steps, half.perturbed_steps, zero.perturbed_steps) == (30, 15, 0)
    assert not equal(plain.network, half.network) and equal(plain.network, zero.network)


def test_stopping_keeps_the_epoch_and_the_last_weights(clouds, tmp_path):
    recipe = replace(RECIPE, early_stopping=EarlyStopping(rule="fixed", epochs=2, continue_to_end=True))
    fitted = fit(clouds, LocalRun(tmp_path / "a"), recipe)
    short = fit(clouds, LocalRun(tmp_path / "b"), replace(recipe, early_stopping=EarlyStopping(rule="fixed", epochs=2)))
    assert (fitted.epoch, fitted.stopped_at, len(fitted.curve), len(short.curve)) == (2, 2, 6, 2)
    assert equal(fitted.network, short.network)
    full = fit(clouds, LocalRun(tmp_path / "c")).network.state_dict()
    assert all(torch.equal(tensor, full[name]) for name, tensor in fitted.last.items())
    assert fitted.curve[1]["validation_accuracy"] is not None


def test_gradient_descent_takes_all_samples_in_one_step(clouds, tmp_path):
    fitted = fit(clouds, LocalRun(tmp_path), replace(RECIPE, optimizer="gd", epochs=3))
    assert fitted.steps == 3


def test_divergence_is_named(clouds, tmp_path):
    with pytest.raises(DivergedError, match="diverged in epoch 1: lower learning_rate"):
        fit(clouds, LocalRun(tmp_path), replace(RECIPE, learning_rate=1e9))


def test_shifts_and_mirrors():
    generator = torch.Generator().manual_seed(0)
    batch = torch.zeros(200, 2, 7, 9, dtype=torch.uint8)
    batch[:, :, 3, 4] = 200
    batch[:, :, 3, 5] = 100
    moved = shift_and_mirror(batch, 2, generator)
    assert moved.shape == batch.shape and moved.dtype == torch.uint8
    rows, columns = np.nonzero((moved[:, 0] == 200).numpy())[1:]
    assert set(rows) == {1, 2, 3, 4, 5} and set(columns) == {2, 3, 4, 5, 6}
    beside = [int(np.nonzero(picture[0].numpy() == 100)[1][0]) for picture in moved]
    steps = np.array(beside) - columns
    assert set(steps) == {-1, 1} and 60 < (steps == 1).sum() < 140
    assert torch.equal(moved[:, 0], moved[:, 1])


def test_shifts_are_windows_of_the_padded_picture_or_its_mirror_image():
    image = torch.arange(1, 31, dtype=torch.uint8).view(1, 1, 5, 6).repeat(64, 1, 1, 1)
    views = shift_and_mirror(image, 4, torch.Generator().manual_seed(0))
    padded = np.pad(image[0, 0].numpy(), 4)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (5, 6)).reshape(-1, 5, 6)
    allowed = {window.tobytes() for window in windows} | {window[:, ::-1].tobytes() for window in windows}
    drawn = {view[0].numpy().tobytes() for view in views}
    assert drawn <= allowed and len(drawn) > 20
