"""The exact solver against POT, scipy's assignment and its own dual; its couplings; what it refuses."""

import numpy as np
import ot
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from models.core.transport.costs import ground_cost
from models.core.transport.ctransform import column_transform, lower_bound, row_transform, tighten
from models.core.transport.exact import exact_transport


def problem(seed, n=40, m=30, d=3):
    rng = np.random.default_rng(seed)
    a, b = rng.random(n) + 0.01, rng.random(m) + 0.01
    return a / a.sum(), b / b.sum(), ground_cost(rng.normal(size=(n, d)), rng.normal(size=(m, d)) + 1)


@given(seed=st.integers(0, 999), n=st.integers(1, 50), m=st.integers(1, 50))
@settings(deadline=None, max_examples=40)
def test_value_coupling_and_dual(seed, n, m):
    a, b, cost = problem(seed, n, m)
    found = exact_transport(a, b, cost, plan=True)
    assert found.converged and found.message == ""
    assert found.cost == pytest.approx(ot.emd2(a, b, cost), rel=1e-10)
    rows, columns, mass = found.plan
    assert len(mass) <= n + m - 1 and (mass > 0).all()
    np.testing.assert_allclose(np.bincount(rows, mass, n), a, atol=1e-12)
    np.testing.assert_allclose(np.bincount(columns, mass, m), b, atol=1e-12)
    assert (found.u[:, None] + found.v - cost).max() <= 1e-9
    assert abs(found.gap) <= 1e-9 and found.marginal_error <= 1e-12


def test_equals_the_assignment_for_equal_sizes():
    _, _, cost = problem(0, 60, 60)
    uniform = np.full(60, 1 / 60)
    expected = cost[linear_sum_assignment(cost)].mean()
    assert exact_transport(uniform, uniform, cost).cost == pytest.approx(expected, rel=1e-12)


def test_rows_without_mass_take_no_part():
    a, b, cost = problem(1)
    a[::3] = 0
    a /= a.sum()
    found = exact_transport(a, b, cost, plan=True)
    kept = a > 0
    assert found.cost == pytest.approx(exact_transport(a[kept], b, cost[kept]).cost, rel=1e-12)
    assert kept[found.plan[0]].all()


def test_potentials_of_a_neighbouring_problem_lead_to_the_same_optimum():
    a, b, cost = problem(2, 200, 200)
    cold = exact_transport(a, b, cost)
    warm = exact_transport(a, b, cost * 1.01, potentials=(cold.u, cold.v))
    assert warm.converged and warm.cost == pytest.approx(1.01 * cold.cost, rel=1e-9)


def test_a_solver_that_is_stopped_says_so():
    a, b, cost = problem(3, 200, 200)
    found = exact_transport(a, b, cost, max_iterations=20)
    assert not found.converged and found.message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a, b, c: (a, b, c[:-1]), r"expected shape \(40, 30\)"),
        (lambda a, b, c: (a[:0], b, c[:0]), "without a zero"),
        (lambda a, b, c: (-a, b, c), "weights must not be negative"),
        (lambda a, b, c: (a * 1.001, b, c), "sums differ by 0.001"),
        (lambda a, b, c: (a * np.nan, b, c), "sums differ by nan"),
        (lambda a, b, c: (a, b, np.where(c == c.max(), np.inf, c)), "cost: expected finite numbers"),
    ],
)
def test_bad_input_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        exact_transport(*change(*problem(4)))


@given(seed=st.integers(0, 99))
@settings(deadline=None, max_examples=20)
def test_c_transforms_are_the_tightest_feasible_potentials(seed):
    a, b, cost = problem(seed)
    g = np.random.default_rng(seed).normal(size=len(b))
    f = row_transform(cost, g)
    np.testing.assert_allclose(f, (cost - g).min(1))
    np.testing.assert_allclose(column_transform(cost, f), (cost - f[:, None]).min(0))
    f, tight = tighten(cost, g)
    assert (f[:, None] + tight <= cost + 1e-12).all() and (tight >= g - 1e-12).all()
    assert a @ f + b @ tight <= exact_transport(a, b, cost).cost + 1e-12


def test_c_transforms_in_blocks(monkeypatch):
    _, b, cost = problem(5)
    whole = tighten(cost, b)
    monkeypatch.setattr("models.core.transport.ctransform._BLOCK", 64)
    for part, expected in zip(tighten(cost, b), whole, strict=True):
        np.testing.assert_array_equal(part, expected)


@given(seed=st.integers(0, 99))
@settings(deadline=None, max_examples=20)
def test_every_potential_bounds_the_cost_from_below(seed):
    a, b, cost = problem(seed)
    exact = exact_transport(a, b, cost)
    tensors = [torch.from_numpy(part) for part in (a, b, cost)]
    assert lower_bound(*tensors, torch.from_numpy(exact.v)) == pytest.approx(exact.cost, rel=1e-9)
    g = torch.from_numpy(np.random.default_rng(seed).normal(size=len(b)))
    assert lower_bound(*tensors, g) <= exact.cost + 1e-12
