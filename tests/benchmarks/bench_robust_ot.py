"""Robust transport against a cone programme, partial and unbalanced transport, and plain exact transport as the floor.

Digits with 10% uniform noise on one side, from one cost matrix, on one thread; all solvers in turn, several rounds.
"""

import statistics
import time

import cvxpy as cp
import numpy as np
import ot
import torch

from models.core.transport.costs import ground_cost
from models.robust_ot.bounds import protecting_radius
from models.robust_ot.entropic import RobustProblem
from models.robust_ot.pollution import pollute
from models.robust_ot.proofs import digit_clouds
from models.robust_ot.solver import solve
from tests.benchmarks.report import Report

SHARE, TOLERANCE = 0.1, 5e-3
CONE_UP_TO = 100
UNBALANCED_UP_TO = 500
PIVOTS = 50_000_000


def run(*, quick):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return [_report([100] if quick else [100, 500, 2000], 1 if quick else 3)]
    finally:
        torch.set_num_threads(threads)


def _report(sizes, rounds):
    report = Report(
        f"Robust transport, {SHARE:.0%} noise in one side, gap at most {TOLERANCE:g}, one thread",
        ["n = m", "solver", "seconds", "its time / ours", "value / clean distance"],
    )
    for size in sizes:
        clean, trusted = digit_clouds(size, 0)
        dirty = pollute(clean, None, SHARE, np.random.default_rng(0)).points
        cost, mass = ground_cost(dirty, trusted, p=1), np.full(size, 1.0 / size)
        reference = ot.emd2(mass, mass, ground_cost(clean, trusted, p=1), numItermax=PIVOTS)
        solvers = _solvers(size)
        seen = {name: [] for name in solvers}
        values = {}
        for _ in range(rounds):
            for name, solver in solvers.items():
                started = time.perf_counter()
                values[name] = solver(cost, mass)
                seen[name].append(time.perf_counter() - started)
        ours = seen["ours, certified"]
        for name, seconds in seen.items():
            ratio = statistics.median(its / our for its, our in zip(seconds, ours, strict=True))
            report.add(str(size), name, statistics.median(seconds), ratio, f"{values[name] / reference:.4f}")
    report.notes += [
        "ratios are medians of ratios within a round; the clean distance is plain transport without the noise",
        f"the cone programme (cvxpy, Clarabel) is run up to n = {CONE_UP_TO}, mm_unbalanced up to {UNBALANCED_UP_TO}",
        "partial and unbalanced transport solve other problems: hard removal, and penalties with free total mass",
        "the cost of mm_unbalanced is divided by the mass that it moves",
    ]
    return report


def _solvers(size):
    solvers = {
        "ours, certified": lambda cost, mass: _ours(cost, mass, "certified"),
        "ours, entropic": lambda cost, mass: _ours(cost, mass, "entropic"),
        "POT emd2 (plain: the floor)": lambda cost, mass: ot.emd2(mass, mass, cost, numItermax=PIVOTS),
        "POT partial_wasserstein": _partial,
    }
    if size <= UNBALANCED_UP_TO:
        solvers["POT mm_unbalanced (KL)"] = _unbalanced
    if size <= CONE_UP_TO:
        solvers["cvxpy + Clarabel"] = _cone
    return solvers


def _ours(cost, mass, solver):
    found = solve(RobustProblem(cost, mass, mass, protecting_radius(SHARE), 0.0), solver=solver, tolerance=TOLERANCE)
    if not found.converged:
        raise RuntimeError(f"{solver}: gap {found.gap}")
    return found.upper


def _partial(cost, mass):
    moved = min(1.0, float(mass.sum()))
    plan = ot.partial.partial_wasserstein(mass / (1.0 - SHARE), mass, cost, m=moved, numItermax=PIVOTS)
    return float(np.vdot(plan, cost))


def _unbalanced(cost, mass):
    plan = ot.unbalanced.mm_unbalanced(mass, mass, cost, reg_m=float(np.median(cost)), div="kl", numItermax=1000)
    return float(np.vdot(plan, cost)) / float(plan.sum())


def _cone(cost, mass):
    n = len(mass)
    plan, w = cp.Variable((n, n), nonneg=True), cp.Variable(n, nonneg=True)
    inside = cp.norm(w - 1) <= np.sqrt(2 * protecting_radius(SHARE) * n)
    constraints = [cp.sum(plan, 1) == mass[0] * w, cp.sum(plan, 0) == mass, inside]
    problem = cp.Problem(cp.Minimize(cp.sum(cp.multiply(plan, cost))), constraints)
    return problem.solve(solver=cp.CLARABEL)
