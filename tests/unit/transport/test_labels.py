"""Distances between classes: closed forms against scipy, their order, and their tables."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import sqrtm

from models.core.outputs import Side
from models.core.transport.costs import ground_cost
from models.core.transport.exact import exact_transport
from models.core.transport.labels import bures, label_tables


def squared_bures(first, second):
    root = sqrtm(first)
    return float(np.trace(first + second - 2 * sqrtm(root @ second @ root)).real)


def one(first, second):
    return float(bures(torch.as_tensor(first)[None], torch.as_tensor(second)[None]))


def rotation(degrees):
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return np.array([[cos, -sin], [sin, cos]])


def spread(seed, d, rank=None):
    rng = np.random.default_rng(seed)
    factor = rng.normal(size=(d, rank or d + 2))
    return factor @ factor.T


def test_bures_of_known_covariances():
    assert one(np.eye(3), 4 * np.eye(3)) == pytest.approx(3, abs=1e-12)
    turn, stretched = rotation(45), np.diag([1.0, 4.0])
    turned = turn @ stretched @ turn.T
    assert one(stretched, turned) == pytest.approx(squared_bures(stretched, turned), abs=1e-10)
    # The eigenvalues of S S' are those of the root's square: tr sqrt(M) = sqrt(tr M + 2 sqrt(det M)) in two dimensions.
    product = stretched @ turned
    closed = 10 - 2 * np.sqrt(np.trace(product) + 2 * np.sqrt(np.linalg.det(product)))
    assert one(stretched, turned) == pytest.approx(closed, abs=1e-10)


@given(seed=st.integers(0, 999), d=st.integers(1, 12))
@settings(deadline=None, max_examples=30)
def test_bures_equals_scipy_is_symmetric_and_zero_on_itself(seed, d):
    first, second = spread(seed, d), spread(seed + 1000, d)
    assert one(first, second) == pytest.approx(squared_bures(first, second), rel=1e-8, abs=1e-8)
    assert one(first, second) == pytest.approx(one(second, first), rel=1e-9)
    assert one(first, first) == 0.0


@pytest.mark.parametrize("rank", [1, 3])
def test_bures_of_singular_covariances(rank):
    first, second = spread(0, 6, rank), spread(1, 6)
    assert np.isfinite(one(first, second))
    regular = squared_bures(first + 1e-12 * np.eye(6), second)
    assert one(first, second) == pytest.approx(regular, rel=1e-5)
    assert one(first, np.zeros((6, 6))) == pytest.approx(np.trace(first), rel=1e-12)
    assert one(first, first) == 0.0


def test_diagonal_covariances_commute():
    first, second = np.random.default_rng(0).random((2, 3, 5))
    tables = bures(torch.from_numpy(first), torch.from_numpy(second))
    whole = bures(*(torch.diag_embed(torch.from_numpy(part)) for part in (first, second)))
    torch.testing.assert_close(tables, whole, rtol=1e-9, atol=1e-12)


def test_many_pairs_in_steps(monkeypatch):
    first, second = (torch.from_numpy(np.stack([spread(s + k, 4) for k in range(7)])) for s in (0, 50))
    whole = bures(first, second)
    monkeypatch.setattr("models.core.transport.labels._PAIRS_AT_ONCE", 1)
    torch.testing.assert_close(bures(first, second), whole)


def side(seed, n=60, d=3, classes=4, weighted=False):
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), rng.integers(0, classes, n - classes)])
    points = (
        rng.normal(size=(n, d)) * rng.uniform(0.5, 2, (classes, 1))[labels] + 3 * rng.normal(size=(classes, d))[labels]
    )
    weights = rng.random(n) + 0.1
    return Side(points, weights / weights.sum() if weighted else None, labels)


@given(seed=st.integers(0, 999), weighted=st.booleans(), d=st.integers(1, 5))
@settings(deadline=None, max_examples=25)
def test_means_below_gaussian_below_exact_below_upper_bound(seed, weighted, d):
    a, b = side(seed, d=d, weighted=weighted), side(seed + 1000, classes=3, d=d, weighted=weighted)
    kinds = ("means", "gaussian", "exact", "upper-bound")
    tables = [label_tables(a, b, kind, covariance="full").ab for kind in kinds]
    assert all(table.shape == (4, 3) for table in tables)
    for lower, upper in itertools.pairwise(tables):
        assert (lower <= upper * (1 + 1e-9) + 1e-9).all()


def test_one_dimension_is_the_difference_of_means_and_deviations():
    points = np.array([[-1.0], [1.0], [1.0], [5.0]])
    a, b = Side(points[:2], labels=np.zeros(2, dtype=np.int64)), Side(points[2:], labels=np.zeros(2, dtype=np.int64))
    assert label_tables(a, b, "gaussian", covariance="full").ab.item() ** 2 == pytest.approx(9 + 1, rel=1e-12)


def test_exact_tables_hold_the_transport_of_the_classes_points():
    a, b = side(1, weighted=True), side(2, classes=3)
    for p in (1, 2):
        table = label_tables(a, b, "exact", p=p, within=True)
        rows, columns = a.labels == 2, b.labels == 1
        weights = a.weights[rows] / a.weights[rows].sum()
        cost = ground_cost(a.points[rows], b.points[columns], p=p)
        expected = exact_transport(weights, np.full(columns.sum(), 1 / columns.sum()), cost).cost ** (1 / p)
        assert table.ab[2, 1] == pytest.approx(expected, rel=1e-12) and table.converged
        np.testing.assert_array_equal(table.aa, table.aa.T)
        assert (np.diag(table.bb) == 0).all() and (table.bb[~np.eye(3, dtype=bool)] > 0).all()


@pytest.mark.parametrize("kind", ["means", "gaussian", "upper-bound"])
def test_tables_within_a_side(kind):
    a, b = side(3), side(4, classes=2)
    tables = label_tables(a, b, kind, within=True)
    np.testing.assert_allclose(tables.aa, tables.aa.T, rtol=1e-7)
    assert tables.aa.shape == (4, 4) and tables.bb.shape == (2, 2) and (np.diag(tables.aa) == 0).all()
    off = ~np.eye(4, dtype=bool)
    np.testing.assert_allclose(tables.aa[off], label_tables(a, a, kind).ab[off], rtol=1e-9)
    assert label_tables(a, b, kind).aa is None


def test_many_dimensions_are_reduced_for_covariances_only():
    rng = np.random.default_rng(5)
    low = rng.normal(size=(80, 20)) @ rng.normal(size=(20, 300))
    a, b = Side(low[:40], labels=np.arange(40) % 2), Side(low[40:], labels=np.arange(40) % 2)
    reduced = label_tables(a, b, "gaussian", covariance="full")
    assert reduced.explained_variance == pytest.approx(1, abs=1e-9)
    means = label_tables(a, b, "means").ab
    covariances = [np.cov(s.points[s.labels == 0].T, bias=True) for s in (a, b)]
    expected = means[0, 0] ** 2 + one(*covariances)
    assert reduced.ab[0, 0] ** 2 == pytest.approx(expected, rel=1e-6)


def test_unlabelled_or_incomplete_sides_are_named():
    good = side(6)
    with pytest.raises(ValueError, match="side b has no labels"):
        label_tables(good, Side(good.points), "means")
    with pytest.raises(ValueError, match=r"side a: every label in 0\.\.5 must occur"):
        label_tables(Side(good.points, labels=np.where(good.labels == 0, 5, good.labels)), good, "means")
