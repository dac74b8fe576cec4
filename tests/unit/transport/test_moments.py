"""Class means and covariances against numpy and scikit-learn."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.covariance import ledoit_wolf
from sklearn.decomposition import PCA

from models.core.transport.moments import class_moments, principal_basis


def labelled(seed, n=90, d=6, classes=3, shift=0.0):
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(classes), rng.integers(0, classes, n - classes)])
    points = rng.normal(size=(n, d)) * (1 + np.arange(d)) @ rng.normal(size=(d, d)) + labels[:, None] + shift
    weights = rng.random(n) + 0.1
    return points, labels, weights / weights.sum()


def moments(points, labels, weights, kind="full", basis=None):
    return class_moments(*map(torch.from_numpy, (points, labels, weights)), int(labels.max()) + 1, kind, basis)


@given(seed=st.integers(0, 999), d=st.integers(1, 8), shift=st.sampled_from([0.0, 1e5]))
@settings(deadline=None, max_examples=25)
def test_weighted_moments_equal_numpy(seed, d, shift):
    points, labels, weights = labelled(seed, d=d, shift=shift)
    full, diagonal = moments(points, labels, weights), moments(points, labels, weights, "diagonal")
    for label in range(3):
        rows = labels == label
        expected = np.atleast_2d(np.cov(points[rows].T, aweights=weights[rows], bias=True))
        scale = np.abs(expected).max() + 1e-30
        np.testing.assert_allclose(full.means[label], np.average(points[rows], 0, weights[rows]), rtol=1e-12)
        np.testing.assert_allclose(full.covariances[label] / scale, expected / scale, atol=1e-9)
        np.testing.assert_allclose(diagonal.covariances[label] / scale, np.diag(expected) / scale, atol=1e-9)
    torch.testing.assert_close(full.traces, diagonal.traces)


def test_covariances_divide_by_n():
    points, labels = np.array([[0.0], [2.0]]), np.array([0, 0])
    assert moments(points, labels, np.array([0.5, 0.5])).covariances.item() == 1.0


@given(seed=st.integers(0, 999), n=st.integers(6, 120), d=st.integers(1, 20))
@settings(deadline=None, max_examples=40)
def test_shrinkage_is_ledoit_and_wolfs(seed, n, d):
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(n, d)) * (1 + np.arange(d))
    expected, amount = ledoit_wolf(points)
    found = moments(points, np.zeros(n, dtype=np.int64), np.full(n, 1 / n), "shrunk")
    assert float(found.shrinkage[0]) == pytest.approx(amount if d > 1 else 0.0, abs=1e-9)
    np.testing.assert_allclose(found.covariances[0], expected, rtol=1e-8, atol=1e-9)
    assert float(found.traces[0]) == pytest.approx(np.trace(np.atleast_2d(np.cov(points.T, bias=True))), rel=1e-9)


def test_shrunk_covariances_of_few_points_are_regular():
    points, labels, weights = labelled(1, n=12, d=30)
    values = torch.linalg.eigvalsh(moments(points, labels, weights, "shrunk").covariances)
    full = torch.linalg.eigvalsh(moments(points, labels, weights).covariances)
    assert (values[:, 0] > 1e-6 * values[:, -1]).all() and (full[:, 0] < 1e-9 * full[:, -1]).all()


def test_a_point_repeated_has_no_covariance():
    found = moments(np.ones((5, 4)), np.zeros(5, dtype=np.int64), np.full(5, 0.2), "shrunk")
    assert float(found.shrinkage[0]) == 0 and not found.covariances.any()


def test_principal_axes_equal_scikit_learn():
    points, labels, weights = labelled(2, d=12)
    basis, explained = principal_basis([torch.from_numpy(points[:50]), torch.from_numpy(points[50:])], 4)
    pca = PCA(4).fit(points)
    np.testing.assert_allclose(basis @ basis.T, pca.components_.T @ pca.components_, atol=1e-9)
    assert explained == pytest.approx(pca.explained_variance_ratio_.sum(), rel=1e-9)
    found = moments(points, labels, weights, basis=basis)
    full = moments(points, labels, weights)
    assert found.means.shape == (3, 12) and found.covariances.shape == (3, 4, 4)
    torch.testing.assert_close(found.covariances, basis.T @ full.covariances @ basis)
