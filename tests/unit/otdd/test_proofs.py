"""The proofs of the card in small: classes found without names, drift seen and wrong labels told apart, transfer."""

import json

import numpy as np
import pytest
from PIL import Image

from models.core.figures import Figures
from models.core.method import MethodError
from models.core.registry import Registry
from models.core.run import LocalRun
from models.otdd import proofs
from models.otdd.evaluate import TRANSFER, W2, evaluate
from models.otdd.pictures import drift_picture, heat_map, transfer_picture
from models.otdd.pretraining import few_shots
from models.otdd.transfer_proof import SCRATCH, SEEDS, transfer_sets
from models.otdd.variants import coarse_digits, noisy, of_classes, original, relabelled, rotated


def test_digits_are_found_in_another_collection_without_their_names():
    found = proofs.alignment(500, 0)
    assert found["classes aligned by coupling"] >= 7
    assert found["mass on the diagonal"] >= 0.55
    assert found["mass on the diagonal"] > found["mass on the diagonal, label-agnostic"] + 0.1


def test_rotation_and_wrong_labels_are_seen_and_wrong_labels_by_this_distance_only():
    turned, wrong = proofs.rotation_drift(250, 0), proofs.noise_drift(250, 0)
    for curve in (turned, wrong):
        assert (np.diff([curve[step][0] for step in sorted(curve)]) > 0).all()
    assert wrong[0.4][0] / wrong[0.0][0] >= 1.05
    assert wrong[0.4][1] == pytest.approx(wrong[0.0][1], rel=1e-12)
    debiased = proofs.debiased_noise(250, 0)
    assert debiased[0.4][0] / debiased[0.0][0] > wrong[0.4][0] / wrong[0.0][0] + 0.1
    assert debiased[0.4][1] == pytest.approx(debiased[0.0][1], rel=1e-9)


def test_variants_change_what_they_say():
    digits = original("digits", 300, 0)
    wrong = relabelled(digits, 0.4, 0).labels != digits.labels
    assert wrong.mean() == pytest.approx(0.4, abs=0.05)
    quarter = np.rot90(digits.inputs[:, :, :, 0], axes=(1, 2))
    np.testing.assert_array_equal(rotated(digits, 90).inputs[:, :, :, 0], quarter)
    small = original("digits-8x8", 50, 0)
    assert small.inputs.shape == (50, 28, 28, 1) and not small.inputs[:, :4].any()
    assert coarse_digits("digits-8x8", 50, 0).inputs.shape == (50, 8, 8, 1)
    boxes, coarse = digits.inputs[:, 4:24, 4:24, 0].astype(float), coarse_digits("digits", 300, 0).inputs
    assert coarse.mean() == pytest.approx(boxes.mean(), rel=0.02) and coarse.shape == (300, 8, 8, 1)
    half = of_classes(digits, 5)
    assert set(half.labels) == set(range(5)) and len(half.class_names) == 5
    changed = noisy(digits).inputs.astype(float) - digits.inputs
    assert 20 < changed.std() < 80 and (noisy(digits).inputs == noisy(digits).inputs).all()


def test_sources_and_targets_of_the_transfer_proof_share_no_picture():
    sets = original("digits-8x8", 1797, 0)
    source, target = sets.select(range(900)).inputs, sets.select(range(900, 1797)).inputs
    assert len(source) + len(target) == 1797
    assert not {picture.tobytes() for picture in source} & {picture.tobytes() for picture in target}
    rows = few_shots(np.repeat([0, 1, 2], [50, 3, 20]), 10, 0)
    assert np.bincount(np.repeat([0, 1, 2], [50, 3, 20])[rows]).tolist() == [10, 3, 10] and len(set(rows)) == 23


def test_the_stored_errors_cover_every_pair_and_seed():
    rows = json.loads(TRANSFER.read_text())
    cells = {(row["seed"], row["source"], row["target"]) for row in rows}
    assert len(rows) == len(cells) == SEEDS * 3 * (13 + 1)
    assert {source for _, source, _ in cells} == {SCRATCH, *transfer_sets(0)[0]}
    assert all(0 < row["error"] < 1 for row in rows)


def test_the_shipped_figures_name_a_headline_and_their_data():
    figures = Registry()["otdd"].shipped().figures
    assert isinstance(figures, Figures) and figures.command == "deepnight evaluate otdd"
    headlines = {figure.name for figure in figures.figures if figure.headline}
    assert headlines == {"mass on the diagonal", "drift ratio", "Spearman with transfer gain"}
    assert len(figures.tables["transfer"]) == 39 and len(figures.data_sha256) == 4


def test_evaluates_a_users_data(tmp_path):
    digits = original("digits", 200, 0)
    found = evaluate(Registry()["otdd"].shipped(), LocalRun(tmp_path), digits)
    ours, plain = ([f.value for f in found.figures if f.subject == subject] for subject in ("method", W2))
    assert len(ours) == len(plain) == 4 and (np.diff(ours) > 0).all() and np.ptp(plain) < 1e-9
    with pytest.raises(MethodError, match="at least 40 pictures"):
        evaluate(Registry()["otdd"].shipped(), LocalRun(tmp_path), digits.select(range(39)))


def test_pictures_are_drawn(tmp_path):
    curve = {0.0: (1.0, 1.0), 0.4: (1.3, 1.0)}
    drift_picture((curve, curve), tmp_path / "drift.png")
    rows = [{"source": "a", "target": t, "gain": 0.1, "otdd": 2.0, "w2": 1.0} for t in "xy"]
    transfer_picture(rows, tmp_path / "transfer.png")
    names = ["short", "a name that is far too long to be written out"]
    heat_map(np.array([[0, 2.0], [2.0, 0]]), names, tmp_path / "h.png")
    for name in ("drift.png", "transfer.png", "h.png"):
        with Image.open(tmp_path / name) as picture:
            assert picture.format == "PNG" and picture.width > 300 and len(picture.getcolors(1 << 24)) > 8
