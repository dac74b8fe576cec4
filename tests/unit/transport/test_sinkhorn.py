"""Entropic transport against POT, in batches, streamed, against itself, in both limits of epsilon; its rounding."""

import numpy as np
import ot
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.core.transport.costs import GroundCost
from models.core.transport.coupling import RoundedCoupling
from models.core.transport.exact import exact_transport
from models.core.transport.rounding import round_coupling
from models.core.transport.sinkhorn import sinkhorn, sinkhorn_self

TIGHT = {"tolerance": 1e-10, "dtype": torch.float64, "max_iterations": 20_000}


def problem(seed, n=40, m=30, d=3):
    rng = np.random.default_rng(seed)
    a, b = rng.random(n) + 0.05, rng.random(m) + 0.05
    cost = GroundCost(*(torch.from_numpy(rng.normal(size=(k, d)) + shift) for k, shift in ((n, 0), (m, 1))))
    return torch.from_numpy(a / a.sum()), torch.from_numpy(b / b.sum()), cost.dense()


def plan_of(solved, index=0):
    return solved.left[index, :, None] * solved.kernel[index].double() * solved.right[index]


@given(seed=st.integers(0, 999), share=st.sampled_from([0.02, 0.1, 1.0]), n=st.integers(1, 40), m=st.integers(1, 40))
@settings(deadline=None, max_examples=30)
def test_value_potentials_and_coupling_equal_pot(seed, share, n, m):
    a, b, cost = problem(seed, n, m)
    epsilon = share * float(cost.median())
    found = sinkhorn(a, b, cost, epsilon, **TIGHT)
    with np.errstate(all="ignore"):
        plan = ot.sinkhorn(a.numpy(), b.numpy(), cost.numpy(), epsilon, "sinkhorn_log", 20_000, 1e-12, warn=False)
    assert bool(found.converged)
    np.testing.assert_allclose(plan_of(found), plan, atol=1e-8)
    product = a[:, None] * b
    relative = torch.from_numpy(plan) / product
    divergence = (torch.from_numpy(plan) * relative.clamp_min(1e-300).log()).sum()
    expected = float((torch.from_numpy(plan) * cost).sum() + epsilon * divergence)
    assert float(found.value) == pytest.approx(expected, rel=1e-7, abs=1e-9)
    potentials = product * torch.exp((found.f[0, :, None] + found.g[0] - cost) / epsilon)
    np.testing.assert_allclose(potentials, plan, atol=1e-8)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-9)])
@pytest.mark.parametrize("share", [1e-3, 1e-2, 1.0])
def test_marginals_are_kept_within_the_tolerance(dtype, tolerance, share):
    a, b, cost = problem(1, 150, 120)
    found = sinkhorn(a, b, cost, share * float(cost.median()), tolerance=tolerance, dtype=dtype, max_iterations=100_000)
    plan = plan_of(found)
    assert bool(found.converged) and float(found.marginal_error) <= tolerance
    measured = max(float((plan.sum(1) - a).abs().sum()), float((plan.sum(0) - b).abs().sum()))
    assert measured <= 1.2 * tolerance + 1e-6 * (dtype == torch.float32)


def test_single_precision_finds_the_value_of_double():
    a, b, cost = problem(2, 200, 150)
    epsilon = 0.01 * float(cost.median())
    fast, sure = sinkhorn(a, b, cost, epsilon), sinkhorn(a, b, cost, epsilon, **TIGHT)
    assert float(fast.value) == pytest.approx(float(sure.value), rel=1e-5)


def test_a_batch_equals_its_single_problems():
    problems = [problem(seed) for seed in range(4)]
    a, b, cost = (torch.stack(parts) for parts in zip(*problems, strict=True))
    epsilon = torch.tensor([0.02, 0.05, 0.3, 2.0], dtype=torch.float64)
    together = sinkhorn(a, b, cost, epsilon, **TIGHT)
    for index, (single, value) in enumerate(zip(problems, epsilon, strict=True)):
        alone = sinkhorn(*single, value, **TIGHT)
        assert float(together.value[index]) == pytest.approx(float(alone.value), rel=1e-9)
        torch.testing.assert_close(plan_of(together, index), plan_of(alone), rtol=0, atol=1e-9)
        assert bool(together.converged[index])
    own = torch.stack([GroundCost(*[torch.from_numpy(np.random.default_rng(s).normal(size=(40, 2)))] * 2).dense()
                       for s in range(4)])  # fmt: skip
    selves = sinkhorn_self(a, own, epsilon, **TIGHT)
    for index in range(4):
        alone = sinkhorn_self(a[index], own[index], epsilon[index], **TIGHT)
        assert float(selves.value[index]) == pytest.approx(float(alone.value), rel=1e-8)


def test_a_streamed_cost_gives_what_the_matrix_gives():
    rng = np.random.default_rng(3)
    cost = GroundCost(*(torch.from_numpy(rng.normal(size=(k, 4))) for k in (700, 500)))
    a, b = (torch.full((k,), 1 / k, dtype=torch.float64) for k in (700, 500))
    streamed, dense = sinkhorn(a, b, cost, 0.2), sinkhorn(a, b, cost.dense(torch.float32), 0.2)
    assert float(streamed.value) == pytest.approx(float(dense.value), rel=1e-6)
    kept = [RoundedCoupling.of(solved, a, b) for solved in (streamed, dense)]
    assert kept[0].cost(cost) == pytest.approx(kept[1].cost(cost.dense()), rel=1e-5)


@given(seed=st.integers(0, 999), share=st.sampled_from([0.05, 0.2, 1.0]))
@settings(deadline=None, max_examples=20)
def test_transport_to_itself_equals_the_general_solver(seed, share):
    rng = np.random.default_rng(seed)
    points = torch.from_numpy(rng.normal(size=(40, 3)))
    cost = GroundCost(points, points).dense()
    a, _, _ = problem(seed)
    epsilon = share * float(cost.median())
    own = sinkhorn_self(a, cost, epsilon, **TIGHT)
    assert bool(own.converged)
    # A coupling that is nearly the identity takes the general solver very long to reach 1e-10.
    general = sinkhorn(a, a, cost, epsilon, tolerance=1e-7, dtype=torch.float64)
    assert float(own.value) == pytest.approx(float(general.value), rel=2e-5)
    coupling = a[:, None] * a * torch.exp((own.f[0, :, None] + own.f[0] - cost) / epsilon)
    np.testing.assert_allclose(coupling.sum(1), a, atol=1e-8)


def test_small_epsilon_is_exact_transport_and_large_epsilon_the_product():
    a, b, cost = problem(4)
    exact = exact_transport(a.numpy(), b.numpy(), cost.numpy()).cost
    median = float(cost.median())
    found = [
        float((plan_of(sinkhorn(a, b, cost, share * median, **TIGHT)) * cost).sum()) for share in (0.1, 0.02, 4e-3)
    ]
    assert found[0] > found[1] > found[2] > exact and found[2] == pytest.approx(exact, rel=2e-3)
    product = plan_of(sinkhorn(a, b, cost, 1e6 * median, **TIGHT))
    np.testing.assert_allclose(product, a[:, None] * b, rtol=1e-4)
    assert float((product * cost).sum()) == pytest.approx(float(a @ cost @ b), rel=1e-5)


@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_the_unit_of_the_cost_does_not_matter(scale):
    a, b, cost = problem(5)
    epsilon = 0.01 * float(cost.median())
    found = sinkhorn(a, b, scale * cost, scale * epsilon)
    assert bool(found.converged)
    assert float(found.value) == pytest.approx(scale * float(sinkhorn(a, b, cost, epsilon).value), rel=1e-4)


def test_far_clusters_and_a_far_outlier():
    """Costs of very different size, where a kernel of plain exponentials underflows."""
    rng = np.random.default_rng(6)
    x, y = rng.normal(size=(60, 2)), rng.normal(size=(50, 2))
    x[30:] += 100
    y[:25] += 100
    x[0] = 1e4
    a, b = (torch.full((k,), 1 / k, dtype=torch.float64) for k in (60, 50))
    cost = GroundCost(torch.from_numpy(x), torch.from_numpy(y)).dense()
    found = sinkhorn(a, b, cost, 1e-3 * float(cost.median()), max_iterations=50_000)
    kept = RoundedCoupling.of(found, a, b).cost(cost)
    assert kept == pytest.approx(exact_transport(a.numpy(), b.numpy(), cost.numpy()).cost, rel=1e-3)


def test_points_that_coincide_cost_nothing():
    a = torch.full((7,), 1 / 7, dtype=torch.float64)
    assert float(sinkhorn(a, a, torch.zeros(7, 7), 0.1).value) == pytest.approx(0, abs=1e-7)
    assert float(sinkhorn_self(a, torch.zeros(7, 7), 0.1).value) == pytest.approx(0, abs=1e-7)


def test_too_few_iterations_are_said():
    a, b, cost = problem(7)
    found = sinkhorn(a, b, cost, 1e-4 * float(cost.median()), max_iterations=2)
    assert not bool(found.converged) and float(found.marginal_error) > 1e-5
    points = torch.from_numpy(np.random.default_rng(7).normal(size=(40, 3)))
    own = sinkhorn_self(a, GroundCost(points, points), 1.0, max_iterations=2)
    assert not bool(own.converged) and float(own.marginal_error) > 1e-5


@pytest.mark.parametrize("epsilon", [0.0, -1.0, float("nan")])
def test_epsilon_must_be_positive(epsilon):
    with pytest.raises(ValueError, match="epsilon must be positive"):
        sinkhorn(*problem(8), epsilon)


@given(seed=st.integers(0, 999), iterations=st.sampled_from([1, 3, 1000]))
@settings(deadline=None, max_examples=30)
def test_rounding_keeps_both_marginals_and_moves_little(seed, iterations):
    a, b, cost = problem(seed)
    solved = sinkhorn(a, b, cost, 0.05 * float(cost.median()), max_iterations=iterations)
    rounded = RoundedCoupling.of(solved, a, b)
    whole = rounded.block(0, 40)
    rough = plan_of(solved)
    by_matrix = round_coupling(rough.numpy(), a.numpy(), b.numpy())
    error = float((rough.sum(1) - a).abs().sum() + (rough.sum(0) - b).abs().sum())
    for coupling in (whole.numpy(), by_matrix):
        assert (coupling >= 0).all() and coupling.sum() == pytest.approx(1, abs=1e-12)
        np.testing.assert_allclose(coupling.sum(1), a, atol=1e-12)
        np.testing.assert_allclose(coupling.sum(0), b, atol=1e-12)
        assert np.abs(coupling - rough.numpy()).sum() <= 2 * error + 1e-12
    np.testing.assert_allclose(whole, by_matrix, atol=1e-12)
    assert rounded.cost(cost) == pytest.approx(float((whole * cost).sum()), rel=1e-12)
    assert rounded.cost(cost) >= exact_transport(a.numpy(), b.numpy(), cost.numpy()).cost - 1e-12


def test_mass_between_groups_and_largest_entries(monkeypatch):
    a, b, cost = problem(9)
    rounded = RoundedCoupling.of(sinkhorn(a, b, cost, 0.3), a, b)
    whole = rounded.block(0, 40).numpy()
    monkeypatch.setattr("models.core.transport.kernel._BLOCK_ENTRIES", 70)
    rows, columns = torch.arange(40) % 3, torch.arange(30) % 2
    grouped = rounded.grouped(rows, columns, (3, 2))
    expected = [[whole[np.ix_(rows == i, columns == j)].sum() for j in range(2)] for i in range(3)]
    np.testing.assert_allclose(grouped, expected, rtol=1e-12)
    i, j, mass = (part.numpy() for part in rounded.largest(4))
    assert len(i) == 160
    np.testing.assert_allclose(whole[i, j], mass, rtol=1e-12)
    for row in range(40):
        np.testing.assert_allclose(np.sort(mass[i == row]), np.sort(whole[row])[-4:], rtol=1e-12)


def test_rounding_leaves_a_coupling_alone_and_fills_an_empty_one():
    a, b = np.array([0.5, 0.5]), np.array([0.25, 0.75])
    product = np.outer(a, b)
    np.testing.assert_array_equal(round_coupling(product, a, b), product)
    np.testing.assert_allclose(round_coupling(np.zeros((2, 2)), a, b), product)
