"""The theory in numbers: covariances, gradients, the spectrum, and gradient descent that stops in time."""

import numpy as np
import pytest
import torch

from models.core.classifiers import Classifier
from models.early_stopping.theory import (
    centre_covariance,
    descend,
    draw_clusters,
    gradient,
    initial_weights,
    kernel,
    linearised_distance,
    nearest_label,
    outer_weights,
    output,
    spectrum,
)


@pytest.mark.parametrize(
    ("angle", "off", "least"),
    [
        (90, 0, 0.5),
        (60, 1 / 6, 1 / 3),
        (30, 0.3608439, 0.1391561),
        (120, -1 / 12, 0.4166667),
        (0, 0.5, 0),
        (180, 0, 0.5),
    ],
)
def test_relu_covariance_of_two_centres(angle, off, least):
    radians = np.radians(angle)
    centres = np.array([[1.0, 0.0], [np.cos(radians), np.sin(radians)]])
    sigma = centre_covariance(centres, "relu")
    np.testing.assert_allclose(sigma, [[0.5, off], [off, 0.5]], atol=1e-6)
    assert np.linalg.eigvalsh(sigma)[0] == pytest.approx(least, abs=1e-6)
    if angle in (60, 30):
        ratio = np.linalg.norm(centres, 2) ** 2 / np.linalg.eigvalsh(sigma)[0]
        assert ratio == pytest.approx({60: 4.5, 30: 13.4096}[angle], abs=1e-3)


@pytest.mark.parametrize(("kind", "diagonal"), [("softplus", 0.2933790), ("tanh", 0.4644029)])
def test_diagonal_of_the_covariance(kind, diagonal):
    assert centre_covariance(np.eye(2), kind)[0, 0] == pytest.approx(diagonal, abs=1e-6)
    samples = np.random.default_rng(0).normal(size=(200_000, 2))
    from models.early_stopping.theory import derivative

    centres = np.array([[1.0, 0.0], [0.6, 0.8]])
    slopes = derivative(kind, samples @ centres.T)
    expected = 0.6 * (slopes[:, 0] * slopes[:, 1]).mean()
    assert centre_covariance(centres, kind)[0, 1] == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize("kind", ["softplus", "tanh", "relu"])
def test_closed_forms_equal_autograd(kind):
    data = draw_clusters(20, 5, 4, 0.3, 0.2, 0)
    start = initial_weights(12, 5, 1)
    weights = torch.tensor(start, requires_grad=True)
    inputs, labels, v = torch.tensor(data.inputs), torch.tensor(data.labels), torch.tensor(outer_weights(12))
    phi = {"softplus": torch.nn.functional.softplus, "tanh": torch.tanh, "relu": torch.relu}[kind]

    def network(w):
        return phi(inputs @ w.T) @ v

    loss = 0.5 * (network(weights) - labels).square().sum()
    loss.backward()
    np.testing.assert_allclose(gradient(start, data.inputs, data.labels, kind), weights.grad.numpy(), atol=1e-12)
    jacobian = torch.autograd.functional.jacobian(network, weights.detach()).flatten(1).numpy()
    np.testing.assert_allclose(kernel(start, data.inputs, kind), jacobian @ jacobian.T, atol=1e-12)
    np.testing.assert_allclose(output(start, data.inputs, kind), network(weights).detach().numpy(), atol=1e-12)


def test_exact_clusters_converge_to_their_means():
    data = draw_clusters(40, 10, 4, 0.0, 0.2, 0)
    last = descend(data, 400, 3000, "softplus", 1, (3000,))[0]
    assert last["loss"] == pytest.approx(0.5 * 40 * (1 - 0.6**2), abs=1e-3)  # 2 n rho (1 - rho) = 12.8
    assert last["accuracy"] == 1.0 and last["corrupt_fitted"] == 0.0


@pytest.mark.parametrize("kind", ["softplus", "relu"])
def test_stopped_descent_gives_every_point_its_true_label(kind):
    data = draw_clusters(120, 20, 8, 0.1, 0.2, 0)
    rows = descend(data, 400, 300, kind, 1, (30, 100, 300))
    assert all(row["accuracy"] >= 0.99 and row["corrupt_fitted"] <= 0.05 for row in rows[1:])


def test_noise_lives_outside_the_top_eigenvectors_and_is_far_away():
    gaps, clean, corrupt = [], [], []
    radii = (0.05, 0.1, 0.2, 0.4)
    for eps in radii:
        data = draw_clusters(80, 20, 8, eps, 0.2, 0)
        weights = initial_weights(1000, 20, 1)
        found = spectrum(data, weights, "softplus")
        gaps.append(found.gap)
        clean.append(linearised_distance(data, weights, data.truth, "softplus"))
        corrupt.append(linearised_distance(data, weights, data.labels, "softplus"))
        if eps == 0.05:
            assert found.label_share == pytest.approx(1, abs=1e-3)
            assert found.noise_share == pytest.approx(0.2, abs=0.02)
    slope = np.polyfit(np.log(radii), np.log(corrupt), 1)[0]
    assert -1.1 < slope < -0.9 and abs(np.polyfit(np.log(radii), np.log(clean), 1)[0]) < 0.2
    assert np.polyfit(np.log(radii), np.log(gaps), 1)[0] == pytest.approx(-2, abs=0.2)


def test_exact_clusters_have_rank_k():
    data = draw_clusters(40, 10, 4, 0.0, 0.2, 0)
    values = spectrum(data, initial_weights(200, 10, 1), "softplus").eigenvalues
    assert values[3] > 1e-3 and abs(values[4]) < 1e-10


def test_the_nearest_label_survives_little_noise():
    alphas = np.array([-1.0, 0.0, 1.0])
    assert nearest_label(np.array([0.125]), alphas)[0] == 0  # mean of class 0 with 12.5% flips to 1
    assert nearest_label(np.array([0.51]), alphas)[0] == 1


def test_outputs_differ_by_at_most_the_spectral_norm():
    weights = initial_weights(50, 6, 0)
    pairs = np.random.default_rng(1).normal(size=(200, 2, 6))
    for kind in ("softplus", "relu", "tanh"):
        gap = np.abs(output(weights, pairs[:, 0], kind) - output(weights, pairs[:, 1], kind))
        assert (gap <= np.linalg.norm(weights, 2) * np.linalg.norm(pairs[:, 0] - pairs[:, 1], axis=1) + 1e-9).all()


def test_the_step_size_decides_stability():
    matrix = kernel(initial_weights(200, 10, 1), draw_clusters(40, 10, 4, 0.3, 0.2, 0).inputs, "softplus")
    top = np.linalg.eigvalsh(matrix)[-1]
    residual = np.random.default_rng(0).normal(size=40)
    for factor, stable in ((1.99, True), (2.1, False)):
        r, norms = residual.copy(), []
        for _ in range(300):
            r = r - factor / top * (matrix @ r)
            norms.append(np.linalg.norm(r))
        assert (np.diff(norms) <= 1e-12).all() if stable else norms[-1] > 100 * norms[0]


def test_corruption_is_exact_in_every_cluster():
    data = draw_clusters(103, 6, 5, 0.2, 0.3, 4, alphas=(-1.0, 0.0, 1.0))
    for index in range(5):
        members = data.cluster == index
        assert data.corrupted[members].sum() == int(np.floor(0.3 * members.sum()))
    assert set(np.unique(data.labels)) <= {-1.0, 0.0, 1.0}


def test_symmetric_start_gives_zero_and_few_rows_fit():
    data = draw_clusters(20, 5, 4, 0.3, 0.2, 0)
    assert np.abs(output(initial_weights(40, 5, 0, symmetric=True), data.inputs, "softplus")).max() < 1e-12
    with pytest.raises(ValueError, match="at most 4000"):
        kernel(np.zeros((2, 3)), np.zeros((4001, 3)), "relu")


def test_the_network_of_the_paper_has_its_size():
    network = Classifier("two-conv", (1, 28, 28), 10, torch.zeros(1, 1, 1), torch.ones(1, 1, 1))
    assert sum(weight.numel() for weight in network.parameters()) == 4_795_914
