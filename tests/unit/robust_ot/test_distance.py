import json

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from models.core.inputs import InputError
from models.core.method import MethodError
from models.core.outputs import Side, Sides
from models.core.registry import Registry
from models.robust_ot.schema import Params

rng = np.random.default_rng(5)
A, B = rng.normal(size=(80, 3)), rng.normal(size=(70, 3)) + 0.3
A[:4] += 30.0


@pytest.fixture(scope="module")
def method():
    entry = Registry()["robust-ot"]
    return entry.method.load(entry.shipped(), torch.device("cpu"))


def distance(method, a=None, b=None, cost=None, coupling=False, **params):
    sides = Sides(a or Side(A), b or Side(B), coupling, cost)
    return method.predict([sides], Params(**params))[0]


@pytest.mark.parametrize("solver", ["certified", "entropic"])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("p", [1, 2])
def test_answer_holds_what_was_promised(method, solver, metric, p):
    found = distance(method, solver=solver, metric=metric, p=p, coupling=True)
    details = json.loads(json.dumps(found.details, allow_nan=False))
    assert details["converged"]
    assert details["lower_bound"] <= found.distance <= details["upper_bound"] <= details["plain_distance"]
    assert details["distance_power"] == pytest.approx(found.distance**p)
    assert len(details["weights_a"]) == 80 and details["weights_b"] == [1.0] * 70
    assert details["stats"]["chi2_a"] <= details["stats"]["rho_a"] * (1 + 1e-9)
    assert found.coupling[2].sum() == pytest.approx(1.0)
    assert details["outliers_b"] == []


def test_outliers_are_named(method):
    details = distance(method).details
    assert {entry["index"] for entry in details["outliers_a"]} == {0, 1, 2, 3}
    assert all(entry["weight"] < 0.1 for entry in details["outliers_a"])
    assert details["plain_distance"] > 3 * distance(method).distance


def test_share_and_radius_agree(method):
    assert distance(method, rho_a=0.125).distance == distance(method, outlier_fraction_a=0.2).distance


def test_both_forms_are_refused():
    with pytest.raises(ValidationError, match="not both"):
        Params(rho_a=0.1, outlier_fraction_a=0.1)


def test_too_large_a_radius_names_its_parameter(method):
    with pytest.raises(MethodError, match=r"rho_a: at most 39\.5"):
        distance(method, rho_a=40.0)


def test_largest_radius_sends_all_mass_to_the_nearest_points(method):
    found = distance(method, rho_a=39.5)
    nearest = np.linalg.norm(A[:, None] - B, axis=2).min(axis=0).mean()
    assert found.details["converged"]
    assert found.details["lower_bound"] - 1e-9 <= nearest <= found.distance + 1e-9


def test_cost_matrix_takes_the_place_of_the_metric(method):
    cost = np.linalg.norm(A[:, None] - B, axis=2)
    for p in (1, 2):
        assert distance(method, cost=cost, p=p).distance == pytest.approx(distance(method, p=p).distance, rel=1e-6)
    with pytest.raises(InputError, match="cost_matrix"):
        distance(method, cost=-cost)


def test_weighted_points_are_repeated_points(method):
    weights = np.r_[np.full(10, 2.0), np.full(70, 1.0)]
    repeated = Side(np.r_[A[:10], A])
    weighted = distance(method, a=Side(A, weights / weights.sum()), tolerance=1e-4)
    assert weighted.distance == pytest.approx(distance(method, a=repeated, tolerance=1e-4).distance, rel=3e-4)


def test_label_names_do_not_enter_and_labels_count(method):
    labels = (np.arange(80) % 2, np.arange(70) % 2)
    sides = [Side(A + 5.0 * labels[0][:, None], labels=labels[0]), Side(B + 5.0 * labels[1][:, None], labels=labels[1])]
    renamed = Side(sides[0].points, labels=np.where(labels[0] == 0, 7, 3))
    found = distance(method, *sides, labelled=True, p=2)
    assert distance(method, renamed, sides[1], labelled=True, p=2).distance == pytest.approx(found.distance, rel=1e-9)
    assert found.distance > distance(method, *sides, p=2).distance
    with pytest.raises(InputError, match=r"b\.labels"):
        distance(method, sides[0], Side(B), labelled=True)


def test_a_class_that_loses_its_mass_is_told(method):
    labels = np.r_[np.zeros(4, dtype=np.int64), np.ones(76, dtype=np.int64)]
    details = distance(method, Side(A, labels=labels, class_names=["rare", "common"])).details
    rare = details["class_weights_a"][0]
    assert rare["label"] == "rare" and rare["weight"] < 0.1
    assert rare["mass_after"] == pytest.approx(rare["mass"] * rare["weight"])
    assert any("'rare' loses" in warning for warning in details["warnings"])


@pytest.mark.parametrize(
    ("a", "message"),
    [
        (Side(np.zeros((0, 3))), "a: no points"),
        (Side(A[:, :2]), "b.points"),
        (Side(np.full((2, 3), np.nan)), "a.points"),
        (Side(A[:2], np.array([1.0, -1.0])), "a.weights"),
    ],
)
def test_bad_sides_are_named(method, a, message):
    with pytest.raises(InputError, match=message):
        distance(method, a)


def test_a_single_point_and_equal_sides(method):
    assert distance(method, Side(A[:1]), Side(B[:1])).distance == pytest.approx(np.linalg.norm(A[0] - B[0]))
    assert distance(method, Side(A), Side(A)).distance == pytest.approx(0.0, abs=1e-9)
