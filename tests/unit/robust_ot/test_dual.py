import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.robust_ot.bounds import implied_fraction, protecting_radius, robustness_factor
from models.robust_ot.dual import chi_square, feasible_weights, largest_radius, robust_expectation

POTENTIALS = np.array([0.0, 1.0, 2.0, 5.0])
UNIFORM = np.full(4, 0.25)


@pytest.mark.parametrize(
    ("rho", "value", "weights"),
    [
        (0.0, 2.0, (1, 1, 1, 1)),
        (0.05, 1.408392, (1.338062, 1.169031, 1, 0.492907)),
        (0.2, 0.817426, (1.698482, 1.333333, 0.968185, 0)),
        (0.5, 0.422650, (2.488034, 1.333333, 0.178633, 0)),
        (1.0, 0.146447, (3.414214, 0.585786, 0, 0)),
        (1.5, 0.0, (4, 0, 0, 0)),
        (7.0, 0.0, (4, 0, 0, 0)),
    ],
)
def test_worst_expectation_of_four_points(rho, value, weights):
    found = robust_expectation(POTENTIALS, UNIFORM, rho)
    assert found.value == pytest.approx(value, abs=1e-6)
    assert found.weights == pytest.approx(weights, abs=1e-6)


def test_variance_identity_holds_only_while_no_weight_is_zero():
    identity = 2.0 - np.sqrt(2 * 0.2 * POTENTIALS.var())
    assert identity == pytest.approx(0.816784, abs=1e-6)
    assert robust_expectation(POTENTIALS, UNIFORM, 0.2).value > identity + 5e-4


def test_radius_that_lets_all_mass_meet():
    assert largest_radius(UNIFORM) == pytest.approx(1.5)
    assert robust_expectation(POTENTIALS, UNIFORM, 1.4999).weights[1] > 0.0


def test_ties_share_the_mass():
    found = robust_expectation(np.array([0.0, 0.0, 3.0, 4.0]), UNIFORM, 1.0)
    assert found.weights == pytest.approx([2, 2, 0, 0])
    assert robust_expectation(np.full(4, 7.0), UNIFORM, 0.3).weights == pytest.approx([1, 1, 1, 1])


@settings(max_examples=200, deadline=None)
@given(
    f=st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=30),
    rho=st.floats(1e-4, 10.0),
    seed=st.integers(0, 1000),
)
def test_weights_are_feasible_and_no_feasible_weights_do_better(f, rho, seed):
    rng = np.random.default_rng(seed)
    potentials, a = np.array(f), rng.dirichlet(np.ones(len(f))) * 0.9 + 0.1 / len(f)
    a /= a.sum()
    found = robust_expectation(potentials, a, rho)
    assert found.weights.min() >= 0.0
    assert a @ found.weights == pytest.approx(1.0, abs=1e-9)
    assert chi_square(found.weights, a) <= rho * (1 + 1e-9) + 1e-12
    for _ in range(5):
        other = feasible_weights(rng.exponential(size=len(f)) ** 2 + 1e-9, a, rho)
        assert a @ (other * potentials) >= found.value - 1e-7 * (1 + np.abs(potentials).max())


def test_agrees_with_a_cone_programme():
    cp = pytest.importorskip("cvxpy")
    rng = np.random.default_rng(3)
    f, a = rng.normal(size=25) ** 3, rng.dirichlet(np.full(25, 3.0))
    for rho in (0.02, 0.2, 1.0):
        w = cp.Variable(25)
        ball = cp.norm(cp.multiply(np.sqrt(a), w - 1)) <= np.sqrt(2 * rho)
        problem = cp.Problem(cp.Minimize((a * f) @ w), [w >= 0, a @ w == 1, ball])
        problem.solve(solver="CLARABEL")
        assert robust_expectation(f, a, rho).value == pytest.approx(problem.value, abs=1e-6)


def test_radius_of_a_share_of_outliers():
    assert [protecting_radius(g) for g in (0.05, 0.1, 0.2)] == pytest.approx([0.0263158, 0.0555556, 0.125], abs=1e-7)
    assert implied_fraction(protecting_radius(0.17)) == pytest.approx(0.17)
    dropped = np.r_[np.zeros(5), np.full(95, 1 / 0.95)]
    assert chi_square(dropped, np.full(100, 0.01)) == pytest.approx(protecting_radius(0.05))


def test_robustness_factor():
    assert robustness_factor(0.05, 10.0, 0.02) == pytest.approx(1.064110, abs=1e-6)
    assert robustness_factor(0.05, 10.0, protecting_radius(0.05)) == pytest.approx(1.0)
