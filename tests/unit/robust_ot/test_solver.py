import numpy as np
import ot
import pytest
from scipy.spatial.distance import cdist

from models.robust_ot.bounds import protecting_radius, robustness_factor
from models.robust_ot.dual import chi_square
from models.robust_ot.entropic import RobustProblem
from models.robust_ot.solver import solve


def uniform(count):
    return np.full(count, 1.0 / count)


def clouds(outliers=3):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(60, 2)), rng.normal(size=(60, 2)) + 0.5
    x[:outliers] += 20.0
    return x, y


@pytest.fixture(scope="module")
def cost():
    return cdist(*clouds())


def robust(cost, rho_a, rho_b=0.0, **options):
    return solve(RobustProblem(cost, uniform(len(cost)), uniform(cost.shape[1]), rho_a, rho_b), **options)


def cone_programme(cost, rho_a, rho_b):
    cp = pytest.importorskip("cvxpy")
    n, m = cost.shape
    plan, w, v = cp.Variable((n, m), nonneg=True), cp.Variable(n), cp.Variable(m)
    constraints = [cp.sum(plan, 1) == w / n, cp.sum(plan, 0) == v / m, cp.sum(w) == n, cp.sum(v) == m]
    for weights, rho, count in ((w, rho_a, n), (v, rho_b, m)):
        if rho > 0:
            constraints.append(cp.norm(weights - 1) <= np.sqrt(2 * rho * count))
        else:
            constraints.append(weights == 1)
    problem = cp.Problem(cp.Minimize(cp.sum(cp.multiply(plan, cost))), constraints)
    problem.solve(solver="CLARABEL")
    return problem.value


def test_radius_zero_is_plain_transport(cost):
    found = robust(cost, 0.0)
    assert found.upper == pytest.approx(1.776269, abs=1e-6)
    assert found.upper == pytest.approx(ot.emd2(uniform(60), uniform(60), cost), abs=1e-9)
    assert found.lower == pytest.approx(found.upper, abs=1e-9)
    assert found.converged


def test_bounds_hold_the_published_value(cost):
    found = robust(cost, 0.05, 0.05, tolerance=1e-4)
    assert found.converged
    assert found.lower <= 0.3260565 and found.upper >= 0.3260555
    assert found.upper - found.lower <= 4e-5


@pytest.mark.parametrize(("rho_a", "rho_b"), [(0.02, 0.0), (0.0, 0.1), (0.05, 0.05), (0.4, 0.01)])
def test_bounds_hold_the_cone_programmes_value(rho_a, rho_b):
    cost = cdist(*clouds())[:40, :30]
    value = cone_programme(cost, rho_a, rho_b)
    for solver, tolerance in (("certified", 1e-4), ("entropic", 5e-3)):
        found = robust(cost, rho_a, rho_b, solver=solver, tolerance=tolerance)
        assert found.converged
        assert found.lower <= value + 1e-6
        assert found.upper >= value - 1e-6


@pytest.mark.parametrize(("rho", "value"), [(0.0, 1.0), (0.01, 0.575736), (0.05, 0.051317), (1 / 18, 0.0), (0.2, 0.0)])
def test_two_atoms_against_one(rho, value):
    problem = RobustProblem(np.array([[0.0], [10.0]]), np.array([0.9, 0.1]), np.ones(1), rho, 0.0)
    found = solve(problem, plain=1.0, tolerance=1e-5)
    assert found.upper == pytest.approx(value, abs=1e-6)
    assert found.converged


def test_weights_are_feasible_and_attain_the_value(cost):
    found = robust(cost, 0.03, 0.02, coupling=True)
    a = uniform(60)
    for weights, rho in ((found.weights_a, 0.03), (found.weights_b, 0.02)):
        assert weights.min() >= 0.0
        assert weights.mean() == pytest.approx(1.0, abs=1e-9)
        assert chi_square(weights, a) <= rho * (1 + 1e-9)
    rows, columns, mass = found.coupling
    assert np.bincount(rows, mass, 60) == pytest.approx(a * found.weights_a, abs=1e-9)
    assert np.bincount(columns, mass, 60) == pytest.approx(a * found.weights_b, abs=1e-9)
    assert mass @ cost[rows, columns] == pytest.approx(found.upper)
    assert (found.f[:, None] + found.g <= cost + 1e-9).all()


def test_falling_and_convex_in_the_radius(cost):
    rhos = np.linspace(0.0, 0.2, 6)
    values = np.array([robust(cost, rho, tolerance=1e-3).upper for rho in rhos])
    assert (np.diff(values) <= 0.0).all()
    assert (np.diff(values, 2) >= -3e-3 * values[0]).all()


def test_scales_with_the_cost(cost):
    assert robust(7.0 * cost, 0.03).upper == pytest.approx(7.0 * robust(cost, 0.03).upper, rel=5e-3)
    assert robust(1e6 * cost, 0.03, tolerance=1e-4).upper == pytest.approx(
        1e6 * robust(cost, 0.03, tolerance=1e-4).upper, rel=2e-4
    )


def test_sides_may_be_swapped(cost):
    first, second = robust(cost, 0.05, 0.01, tolerance=1e-5), robust(cost.T.copy(), 0.01, 0.05, tolerance=1e-5)
    assert first.upper == pytest.approx(second.upper, abs=2e-5 * first.upper)


def test_duplicating_the_points_changes_nothing(cost):
    once, twice = robust(cost, 0.05, 0.05, tolerance=1e-6), robust(np.repeat(cost, 2, 0), 0.05, 0.05, tolerance=1e-6)
    assert once.upper == pytest.approx(twice.upper, abs=1e-6)


def test_gap_falls_with_the_smoothing(cost):
    gaps = [robust(cost, 0.05, solver="entropic", epsilon=e, tolerance=0.5).gap for e in (0.3, 0.03, 0.003)]
    assert gaps[0] > gaps[1] > gaps[2]


def test_far_outliers_lose_their_mass_and_the_distance_stays_bounded():
    rho, values = protecting_radius(0.05), []
    for far in (20.0, 1e3, 1e5):
        x, y = clouds(outliers=0)
        x[:3] += far
        found = robust(cdist(x, y), rho)
        assert found.converged
        assert found.weights_a[:3].max() < 0.05
        values.append(found.upper)
    clean = ot.emd2(uniform(57), uniform(60), cdist(clouds(0)[0][3:], clouds()[1]))
    assert max(values) <= clean * 1.001
    assert values[2] == pytest.approx(values[1], rel=0.02)


def test_the_papers_bound_is_kept():
    x, y = clouds(outliers=0)
    clean = ot.emd2(uniform(57), uniform(60), cdist(x[3:], y))
    x[:3] += 20.0
    separation = ot.emd2(uniform(57), uniform(3), cdist(x[3:], x[:3])) / clean
    for rho in (0.0, 0.005, 0.01, 0.02):
        assert robust(cdist(x, y), rho).lower <= robustness_factor(0.05, separation, rho) * clean


def test_not_converged_is_said(cost):
    found = robust(cost, 0.05, 0.05, tolerance=1e-12)
    assert not found.converged
    assert found.gap > 1e-12


def test_zero_costs():
    found = robust(np.zeros((3, 4)), 0.1, coupling=True)
    assert (found.upper, found.lower, found.converged) == (0.0, 0.0, True)
    assert found.coupling[2].sum() == pytest.approx(1.0)
