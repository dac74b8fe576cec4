"""The laws of the distance: what it is made of, what it ignores, and what solvers agree on."""

import itertools

import numpy as np
import ot
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm
from scipy.spatial.distance import cdist

from models.core.outputs import Side, Sides
from models.otdd.distance import otdd
from models.otdd.schema import Params

EXACT = {"solver": "exact", "covariance": "full"}


def side(seed, n=50, d=3, classes=3, weighted=False):
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.repeat(np.arange(classes), 2), rng.integers(0, classes, n - 2 * classes)])
    scales, centres = rng.uniform(0.3, 1.5, (classes, d)), 2 * rng.normal(size=(classes, d))
    points = rng.normal(size=(n, d)) * scales[labels] + centres[labels]
    weights = rng.random(n) + 0.1
    return Side(points, weights / weights.sum() if weighted else None, labels, [f"class {c}" for c in range(classes)])


def found(a, b, coupling=False, **parameters):
    return otdd(Sides(a, b, coupling), Params(**parameters))


def value(a, b, **parameters):
    return found(a, b, **parameters).distance


def moved(given_side, scale=1.0, by=0.0):
    return Side(scale * given_side.points + by, given_side.weights, given_side.labels, given_side.class_names)


def gaussian_table(a, b):
    """The squared Bures-Wasserstein table by scipy, class by class."""
    table = np.zeros((a.labels.max() + 1, b.labels.max() + 1))
    for i, j in np.ndindex(table.shape):
        x, y = a.points[a.labels == i], b.points[b.labels == j]
        first, second = (np.cov(points.T, bias=True) for points in (x, y))
        root = sqrtm(first)
        bures = np.trace(first + second - 2 * sqrtm(root @ second @ root)).real
        table[i, j] = ((x.mean(0) - y.mean(0)) ** 2).sum() + bures
    return table


@pytest.mark.parametrize(("lambda_x", "lambda_y"), [(1.0, 1.0), (0.5, 3.0), (1.0, 0.0), (0.0, 1.0)])
def test_equals_pot_on_the_written_out_cost(lambda_x, lambda_y):
    a, b = side(0), side(1, n=40, classes=4)
    squares = gaussian_table(a, b)
    cost = lambda_x * cdist(a.points, b.points, "sqeuclidean") + lambda_y * squares[a.labels][:, b.labels]
    answer = found(a, b, lambda_x=lambda_x, lambda_y=lambda_y, **EXACT)
    expected = ot.emd2(np.full(50, 1 / 50), np.full(40, 1 / 40), cost)
    assert answer.distance**2 == pytest.approx(expected, rel=1e-7)
    assert answer.details["distance_power"] == pytest.approx(expected, rel=1e-7)
    np.testing.assert_allclose(answer.details["label_distances"], np.sqrt(squares), rtol=1e-6)
    assert answer.details["converged"] and abs(answer.details["stats"]["gap"]) < 1e-9


def test_squared_costs_are_not_halved():
    """Code after the paper halves the squared cost, as geomloss does; the value here is twice its."""
    a, b = side(2), side(3)
    half = 0.5 * (cdist(a.points, b.points, "sqeuclidean") + gaussian_table(a, b)[a.labels][:, b.labels])
    halved = ot.emd2(np.full(50, 0.02), np.full(50, 0.02), half)
    answer = found(a, b, **EXACT)
    assert answer.details["distance_power"] == pytest.approx(2 * halved, rel=1e-7)
    assert answer.details["convention"] == "squared costs without a factor 1/2"


@pytest.mark.parametrize("p", [1, 2])
def test_without_labels_it_is_the_wasserstein_distance(p):
    a, b = side(4, weighted=True), side(5, n=30)
    expected = ot.emd2(a.weights, np.full(30, 1 / 30), cdist(a.points, b.points) ** p) ** (1 / p)
    answer = found(a, b, solver="exact", label_distance="none", p=p)
    assert answer.distance == pytest.approx(expected, rel=1e-9)
    assert value(a, b, solver="exact", lambda_y=0.0, p=p) == pytest.approx(expected, rel=1e-9)
    assert "label_distances" not in answer.details and "class_matching" not in answer.details


def test_without_features_it_is_transport_between_class_weights():
    a, b = side(6), side(7, classes=4)
    shares = [np.bincount(s.labels) / len(s.labels) for s in (a, b)]
    expected = ot.emd2(*shares, gaussian_table(a, b))
    assert value(a, b, lambda_x=0.0, **EXACT) ** 2 == pytest.approx(expected, rel=1e-7)


@given(seed=st.integers(0, 999))
@settings(deadline=None, max_examples=15)
def test_label_distances_are_ordered_and_so_are_the_values(seed):
    a, b = side(seed), side(seed + 1000)
    kinds = ("means", "gaussian", "exact", "upper-bound")
    values = [value(a, b, label_distance=kind, **EXACT) for kind in kinds]
    assert all(lower <= upper * (1 + 1e-9) for lower, upper in itertools.pairwise(values))


def test_p_1_adds_distances_not_squares():
    a, b = side(8), side(9)
    table = np.sqrt(gaussian_table(a, b))
    cost = cdist(a.points, b.points) + table[a.labels][:, b.labels]
    answer = found(a, b, p=1, **EXACT)
    assert answer.distance == pytest.approx(ot.emd2(np.full(50, 0.02), np.full(50, 0.02), cost), rel=1e-7)
    assert answer.details["convention"] == "costs without a factor"


@pytest.mark.parametrize("label_distance", ["gaussian", "exact", "means", "none"])
def test_a_set_is_at_distance_zero_of_itself(label_distance):
    a = side(10)
    assert value(a, a, label_distance=label_distance, **EXACT) == pytest.approx(0, abs=1e-7)
    divergence = found(a, a, label_distance=label_distance)
    assert divergence.details["distance_power"] <= 1e-6 * np.square(a.points).sum(1).mean()
    assert value(a, a, label_distance=label_distance, solver="sinkhorn", epsilon=0.1) > 0.1


@pytest.mark.parametrize("solver", ["exact", "sinkhorn", "sinkhorn-divergence"])
def test_symmetric(solver):
    a, b = side(11, weighted=True), side(12, n=30, classes=2)
    tolerance = 1e-9 if solver == "exact" else 1e-4
    assert value(a, b, solver=solver) == pytest.approx(value(b, a, solver=solver), rel=tolerance)


def test_triangle_inequality():
    sides = [side(seed, n=16, classes=2 + seed % 2) for seed in range(8)]
    pairs = itertools.combinations(range(8), 2)
    distances = {pair: value(*(sides[i] for i in pair), **EXACT) for pair in pairs}
    triples = 0
    for triple in itertools.combinations(range(8), 3):
        for far in itertools.combinations(triple, 2):
            middle = next(i for i in triple if i not in far)
            around = sum(distances[tuple(sorted((end, middle)))] for end in far)
            assert distances[far] <= around + 1e-9
            triples += 1
    assert triples == 168


@given(seed=st.integers(0, 99), data=st.data())
@settings(deadline=None, max_examples=15)
def test_names_and_numbers_of_labels_do_not_enter(seed, data):
    a, b = side(seed), side(seed + 100, classes=4)
    order = np.array(data.draw(st.permutations(range(4))))
    renamed = Side(b.points, None, order[b.labels], ["w", "x", "y", "z"])
    plain, other = found(a, b, **EXACT), found(a, renamed, **EXACT)
    assert other.distance == pytest.approx(plain.distance, rel=1e-12)
    permuted = np.array(other.details["label_distances"])[:, order]
    np.testing.assert_allclose(permuted, plain.details["label_distances"], rtol=1e-12)
    assert other.details["classes"]["b"] == ["w", "x", "y", "z"]


@pytest.mark.parametrize("solver", ["exact", "sinkhorn-divergence"])
def test_permuted_rows_permute_the_coupling(solver):
    a, b = side(13, n=20), side(14, n=15)
    order = np.random.default_rng(0).permutation(20)
    shuffled = Side(a.points[order], None, a.labels[order], a.class_names)
    plain, other = (found(s, b, True, solver=solver) for s in (a, shuffled))
    assert other.distance == pytest.approx(plain.distance, rel=1e-6)
    tolerance = 1e-12 if solver == "exact" else 1e-6
    np.testing.assert_allclose(dense(other, 20, 15), dense(plain, 20, 15)[order], atol=tolerance)


def dense(answer, n, m):
    matrix = np.zeros((n, m))
    np.add.at(matrix, answer.coupling[:2], answer.coupling[2])
    return matrix


@given(seed=st.integers(0, 99), by=st.floats(-50, 50))
@settings(deadline=None, max_examples=15)
def test_a_translation_counts_in_the_features_and_in_the_labels(seed, by):
    a = side(seed)
    expected = 2 * 3 * by**2
    assert value(a, moved(a, by=by), **EXACT) ** 2 == pytest.approx(expected, rel=1e-7, abs=1e-9)


@pytest.mark.parametrize("solver", ["exact", "sinkhorn", "sinkhorn-divergence"])
def test_scaling_the_features_scales_the_distance(solver):
    a, b = side(15), side(16)
    scaled = value(moved(a, 255.0), moved(b, 255.0), solver=solver, covariance="full")
    assert scaled == pytest.approx(255.0 * value(a, b, solver=solver, covariance="full"), rel=1e-5)


@pytest.mark.parametrize("solver", ["exact", "sinkhorn", "sinkhorn-divergence"])
@pytest.mark.parametrize(("lambda_x", "lambda_y"), [(1.0, 1.0), (2.0, 0.5)])
def test_augmented_points_give_the_precomputed_value(solver, lambda_x, lambda_y):
    a, b = side(17, weighted=True), side(18)
    given_parameters = {"solver": solver, "covariance": "diagonal", "lambda_x": lambda_x, "lambda_y": lambda_y}
    precomputed, augmented = (value(a, b, method=m, **given_parameters) for m in ("precomputed", "augmented"))
    assert augmented == pytest.approx(precomputed, rel=1e-6)


@pytest.mark.parametrize("solver", ["exact", "sinkhorn", "sinkhorn-divergence"])
def test_couplings_keep_the_weights_and_classes_sum_them(solver):
    a, b = side(19, n=16, weighted=True), side(20, n=12)
    answer = found(a, b, True, solver=solver, epsilon=0.05)
    matrix = dense(answer, 16, 12)
    np.testing.assert_allclose(matrix.sum(1), a.weights, atol=1e-6)
    np.testing.assert_allclose(matrix.sum(0), 1 / 12, atol=1e-6)
    classes = np.array(answer.details["class_coupling"])
    expected = [[matrix[np.ix_(a.labels == i, b.labels == j)].sum() for j in range(3)] for i in range(3)]
    np.testing.assert_allclose(classes, expected, atol=1e-9)
    best = classes.argmax(1)
    assert [row["b"] for row in answer.details["class_matching"]] == [f"class {j}" for j in best]
    shares = classes.max(1) / classes.sum(1)
    np.testing.assert_allclose([row["share"] for row in answer.details["class_matching"]], shares)
    if solver == "exact":
        assert len(answer.coupling[0]) <= 16 + 12 - 1
    assert found(a, b, solver=solver).coupling is None


def test_epsilon_from_exact_to_the_product_of_the_weights():
    a, b = side(21), side(22)
    exact = value(a, b, **EXACT) ** 2
    costs = [
        found(a, b, solver="sinkhorn", covariance="full", epsilon=epsilon).details["distance_power"]
        for epsilon in (1e-3, 1e-2, 1e-1, 10.0)
    ]
    assert exact < costs[0] < costs[1] < costs[2] < costs[3] and costs[0] == pytest.approx(exact, rel=1e-3)
    mean = (cdist(a.points, b.points, "sqeuclidean") + gaussian_table(a, b)[a.labels][:, b.labels]).mean()
    assert costs[3] == pytest.approx(mean, rel=0.05)
    divergence = found(a, b, covariance="full", epsilon=1e-3).details["distance_power"]
    assert divergence == pytest.approx(exact, rel=2e-3)


@pytest.mark.parametrize("label_distance", ["gaussian", "none"])
def test_the_entropic_solvers_say_how_far_they_can_be_from_exact(label_distance):
    a, b = side(23), side(24)
    exact = found(a, b, label_distance=label_distance, **EXACT).details["distance_power"]
    stats = found(a, b, label_distance=label_distance, covariance="full", epsilon=0.02).details["stats"]
    assert stats["transport_cost"] - stats["gap"] <= exact * (1 + 1e-6)
    assert exact <= stats["transport_cost"] * (1 + 1e-6)
    assert 0 < stats["gap"] < 0.2 * exact
    parts = stats["entropic_cost_aa"] + stats["entropic_cost_bb"]
    assert stats["iterations"] > 0 and stats["epsilon"] > 0 and parts > 0


def test_finds_which_class_is_which_without_names():
    """Classes that differ in shape only, seen under a shift and new names."""
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], 40)
    scales = np.array([[3, 0.1], [0.1, 3], [0.5, 0.5]])
    a, b = (Side(rng.normal(size=(120, 2)) * scales[labels], labels=labels, class_names=list("abc")) for _ in "ab")
    b = Side(b.points + 1, None, (labels + 1) % 3, list("xyz"))
    matching = found(a, b).details["class_matching"]
    assert [(row["a"], row["b"]) for row in matching] == [("a", "y"), ("b", "z"), ("c", "x")]
    assert min(row["share"] for row in matching) > 0.9


def test_streamed_costs_give_what_held_ones_do(monkeypatch):
    a, b = side(25, n=120), side(26, n=90)
    held = found(a, b, True)
    monkeypatch.setattr("models.otdd.distance.DENSE_BYTES", 0)
    streamed = found(a, b, True)
    assert streamed.distance == pytest.approx(held.distance, rel=1e-5)
    np.testing.assert_allclose(dense(streamed, 120, 90), dense(held, 120, 90), atol=1e-6)


@pytest.mark.parametrize("solver", ["exact", "sinkhorn", "sinkhorn-divergence"])
def test_smallest_sides(solver):
    one = Side(np.zeros((1, 2)), labels=np.zeros(1, dtype=np.int64))
    other = Side(np.full((1, 2), 3.0), labels=np.zeros(1, dtype=np.int64))
    assert value(one, other, solver=solver, min_label_count=1) == pytest.approx(6, rel=1e-5)
    assert value(one, one, solver=solver, min_label_count=1) == 0
