"""Couplings of the robust distance, and its bounds on weighted sides of different sizes."""

import cvxpy as cp
import numpy as np
import pytest

from models.core.outputs import Side, Sides
from models.core.transport.costs import ground_cost
from models.robust_ot.distance import robust_distance
from models.robust_ot.dual import chi_square
from models.robust_ot.entropic import RobustProblem
from models.robust_ot.schema import Params
from models.robust_ot.solver import solve


def cone_programme(cost, a, b, rho_a, rho_b):
    """The primal problem as written in the paper, by an interior point method."""
    n, m = cost.shape
    plan, w, v = cp.Variable((n, m), nonneg=True), cp.Variable(n, nonneg=True), cp.Variable(m, nonneg=True)
    constraints = [cp.sum(plan, 1) == cp.multiply(a, w), cp.sum(plan, 0) == cp.multiply(b, v), a @ w == 1, b @ v == 1]
    for mass, x, rho in ((a, w, rho_a), (b, v, rho_b)):
        constraints.append(cp.norm(cp.multiply(np.sqrt(mass), x - 1)) <= np.sqrt(2 * rho))
    problem = cp.Problem(cp.Minimize(cp.sum(cp.multiply(plan, cost))), constraints)
    problem.solve(solver=cp.CLARABEL)
    assert problem.status == cp.OPTIMAL
    return problem.value


@pytest.mark.parametrize(
    ("seed", "rho_a", "rho_b"), [(0, 0.03, 0.0), (1, 0.0, 0.1), (2, 0.2, 0.05), (3, 1.0, 0.01), (4, 0.5, 0.0)]
)
def test_weighted_sides_agree_with_the_cone_programme(seed, rho_a, rho_b):
    rng = np.random.default_rng(seed)
    n, m = rng.integers(8, 30, 2)
    x, y = rng.normal(size=(n, 3)), rng.normal(size=(m, 3)) + 0.3
    x[: n // 8] += 10
    a, b = rng.dirichlet(np.full(n, 5.0)), rng.dirichlet(np.full(m, 5.0))
    cost = ground_cost(x, y, p=1 + seed % 2)
    exact = cone_programme(cost, a, b, rho_a, rho_b)
    found = solve(RobustProblem(cost, a, b, rho_a, rho_b), tolerance=1e-3)
    slack = 2e-6 * cost.mean()
    assert found.converged
    assert found.lower - slack <= exact <= found.upper + slack
    for weights, mass, rho in ((found.weights_a, a, rho_a), (found.weights_b, b, rho_b)):
        assert weights.min() >= 0.0 and mass @ weights == pytest.approx(1.0, abs=1e-9)
        assert chi_square(weights, mass) <= rho * (1 + 1e-9) + 1e-12


@pytest.mark.parametrize("solver", ["certified", "entropic"])
def test_coupling_has_the_reweighted_marginals_and_costs_the_distance(solver):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 2)), rng.normal(size=(30, 2))
    params = Params(outlier_fraction_a=0.05, outlier_fraction_b=0.02, solver=solver)
    found = robust_distance(Sides(Side(x), Side(y), True), params)
    rows, columns, mass = found.coupling
    assert np.bincount(rows, mass, 40) == pytest.approx(np.array(found.details["weights_a"]) / 40, abs=1e-9)
    assert np.bincount(columns, mass, 30) == pytest.approx(np.array(found.details["weights_b"]) / 30, abs=1e-9)
    assert mass @ ground_cost(x, y, p=1)[rows, columns] == pytest.approx(found.details["distance_power"])
