"""What reaches the solver: labels, small classes, clusters, draws, limits; and what is refused."""

import json

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from models.core.method import MethodError
from models.core.outputs import Side, Sides
from models.core.registry import Registry
from models.otdd.distance import otdd
from models.otdd.schema import Params


def side(seed, n=60, d=2, classes=3):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    return Side(rng.normal(size=(n, d)) + 5 * labels[:, None], None, labels, [f"class {c}" for c in range(classes)])


def without_labels(given):
    return Side(given.points, given.weights)


def found(a, b, **parameters):
    return otdd(Sides(a, b), Params(**parameters))


def test_missing_labels_are_refused_by_side():
    a, b = side(0), side(1)
    for sides, name in (((without_labels(a), b), "a"), ((a, without_labels(b)), "b")):
        with pytest.raises(MethodError, match=f"^{name}: has no labels; send them"):
            found(*sides)
    assert found(without_labels(a), without_labels(b), label_distance="none").distance > 0


def test_unlabelled_sides_are_clustered_where_asked():
    a, b = side(0), side(1)
    answer = found(a, without_labels(b), unlabelled="cluster", solver="exact")
    assert answer.details["stats"]["clustered"] == [False, True]
    assert answer.details["classes"]["b"] == ["cluster 0", "cluster 1", "cluster 2"]
    # The classes lie far apart: clusters are the classes, and the value is that of the labels.
    assert answer.distance == pytest.approx(found(a, b, solver="exact").distance, rel=1e-9)
    both = found(without_labels(a), without_labels(b), unlabelled="cluster")
    stats = both.details["stats"]
    # Clusters of one point are classes of one point.
    assert sum(stats["classes"]) + len(stats["dropped_classes"]) == 20 and stats["clustered"] == [True, True]
    repeated = Side(np.repeat(a.points[:2], 30, axis=0))
    assert found(repeated, b, unlabelled="cluster").details["stats"]["classes"] == [2, 3]


def test_small_classes_are_left_out_and_reported():
    a, b = side(2), side(3)
    labels = a.labels.copy()
    labels[:2] = 3
    a = Side(a.points, None, labels, ["p", "q", "r", "rare"])
    answer = found(a, b, min_label_count=3)
    assert answer.details["stats"]["dropped_classes"] == [{"side": "a", "class": "rare", "samples": 2}]
    assert answer.details["stats"]["n"] == 58 and answer.details["stats"]["given"] == [60, 60]
    assert answer.details["classes"]["a"] == ["p", "q", "r"]
    alone = Side(a.points[2:], None, labels[2:], ["p", "q", "r"])
    assert answer.distance == pytest.approx(found(alone, b).distance, rel=1e-9)
    assert found(a, b, min_label_count=2).details["stats"]["dropped_classes"] == []
    with pytest.raises(MethodError, match=r"^a: no class has min_label_count = 21 of the 60 samples compared"):
        found(a, b, min_label_count=21)


def test_rows_of_the_coupling_are_those_that_were_sent():
    a, b = side(4), side(5)
    labels = a.labels.copy()
    labels[10] = 3
    a = Side(a.points, None, labels)
    answer = otdd(Sides(a, b, return_coupling=True), Params(solver="exact"))
    assert sorted(set(answer.coupling[0].tolist())) == [row for row in range(60) if row != 10]


def test_gaps_between_label_numbers_do_not_matter():
    a, b = side(6), side(7)
    gapped = Side(a.points, None, a.labels * 4)
    answer = found(gapped, b)
    assert answer.distance == pytest.approx(found(a, b).distance, rel=1e-12)
    assert answer.details["classes"]["a"] == ["0", "4", "8"] and answer.details["stats"]["dropped_classes"] == []


def test_a_cost_matrix_is_refused():
    a, b = side(8), side(9)
    with pytest.raises(MethodError, match=r"^cost_matrix: "):
        otdd(Sides(a, b, cost=np.zeros((60, 60))), Params())


def test_unequal_dimensions_are_refused():
    with pytest.raises(MethodError, match=r"^b: points of 3 numbers cannot be compared with 2"):
        found(side(10), side(11, d=3))


def test_what_would_not_fit_is_refused_with_the_estimate(monkeypatch):
    large = Side(np.zeros((20_000, 1)), None, np.zeros(20_000, dtype=np.int64))
    with pytest.raises(
        MethodError, match=r"^max_samples: 20000 x 20000 samples with the solver exact need about 12\.8 GB"
    ):
        found(large, large, solver="exact", max_samples=20_000)
    a, b = side(12, n=1000), side(13)
    monkeypatch.setattr("models.otdd.distance.MEMORY_BYTES", 2 << 20)
    assert found(a, b, solver="sinkhorn").distance > 0
    # The divergence also solves each side against itself.
    with pytest.raises(MethodError, match=r"1000 x 60 samples with the solver sinkhorn-divergence"):
        found(a, b, solver="sinkhorn-divergence")


def test_large_sides_are_drawn_from_and_the_spread_is_told():
    a, b = side(12, n=600), side(13, n=90)
    once = found(a, b, max_samples=100)
    assert once.details["spread"] is None and once.details["stats"]["n"] == 100
    assert once.details["stats"]["m"] == 90 and once.details["stats"]["given"] == [600, 90]
    assert found(a, b, max_samples=100).distance == once.distance
    assert found(a, b, max_samples=100, seed=1).distance != once.distance
    several = found(a, b, max_samples=100, repeats=4)
    singles = [found(a, b, max_samples=100, seed=1009 * k).distance for k in range(4)]
    assert several.distance == pytest.approx(np.mean(singles), rel=1e-12)
    assert several.details["spread"] == pytest.approx(np.std(singles, ddof=1), rel=1e-9)
    whole = found(a, b, repeats=4)
    assert whole.details["spread"] is None and whole.details["stats"]["n"] == 600


def test_weights_are_kept_through_draws():
    a, b = side(14, n=300), side(15)
    heavy = np.where(a.labels == 0, 100.0, 1.0)
    weighted = Side(a.points, heavy / heavy.sum(), a.labels, a.class_names)
    classes = np.array(found(weighted, b, max_samples=100, solver="exact").details["class_coupling"])
    assert classes.sum() == pytest.approx(1) and classes[0].sum() > 0.95


@pytest.mark.parametrize("solver", ["exact", "sinkhorn-divergence"])
def test_details_can_be_sent(solver):
    details = found(side(16), side(17), solver=solver).details
    assert json.loads(json.dumps(details, allow_nan=False)) == details
    assert details["stats"]["solver"] == solver and details["stats"]["seconds"] > 0
    assert details["stats"]["explained_variance"] == 1.0 and 0 < details["stats"]["shrinkage"] <= 1


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"method": "augmented"}, "augmented needs label_distance gaussian, covariance diagonal and p = 2"),
        ({"method": "augmented", "covariance": "diagonal", "p": 1}, "augmented needs"),
        ({"method": "augmented", "covariance": "diagonal", "label_distance": "means"}, "augmented needs"),
        ({"lambda_x": 0, "lambda_y": 0}, "nothing is left to compare"),
        ({"lambda_x": 0, "label_distance": "none"}, "nothing is left to compare"),
        ({"epsilon": 0}, "epsilon"),
        ({"p": 3}, "p"),
        ({"max_samples": 20_001}, "max_samples"),
        ({"solver": "simplex"}, "solver"),
        ({"entreg": 0.1}, "entreg"),
    ],
)
def test_parameters_that_make_no_sense_are_named(parameters, message):
    with pytest.raises(ValidationError, match=message):
        Params(**parameters)


def test_the_served_method_answers_a_batch():
    entry = Registry()["otdd"]
    method = entry.method.load(entry.shipped(), torch.device("cpu"))
    a, b = side(18), side(19)
    answers = method.predict([Sides(a, b), Sides(a, a)], entry.default_params)
    assert answers[0].distance == pytest.approx(found(a, b).distance, rel=1e-12)
    assert answers[1].distance == pytest.approx(0, abs=0.01)
    assert entry.card.inline_pairs == 4_000_000
    kinds = {kind.kind: (entry.job_function(kind).__name__, entry.model(kind.parameters)) for kind in entry.card.jobs}
    assert {name: function for name, (function, _) in kinds.items()} == {
        "dataset-distance": "dataset_distance",
        "transfer-rank": "transfer_rank",
    }
    for _, model in kinds.values():
        assert set(Params.model_fields) < set(model.model_fields)
