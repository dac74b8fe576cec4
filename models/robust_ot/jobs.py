"""The job ``robust-distance``: the distance at many radii, resumable point by point."""

from __future__ import annotations

from typing import Any

import numpy as np

from models.core.inputs import Float64
from models.core.jobs import JobContext
from models.robust_ot.bounds import protecting_radius
from models.robust_ot.elbow import elbow
from models.robust_ot.entropic import RobustProblem
from models.robust_ot.pairs import Pair, load_pair
from models.robust_ot.pictures import curve_picture
from models.robust_ot.schema import Ground, RobustDistanceParameters
from models.robust_ot.solver import RobustTransport, solve
from models.robust_ot.weights import class_weights, lost_classes


def robust_distance(job: JobContext, parameters: RobustDistanceParameters) -> dict[str, Any]:
    """The curve of the distance against the share of outliers that the radius can drop, and its elbow.

    Raises:
        MethodError: the two data sets cannot be compared.
    """
    pair = load_pair(job, parameters.b, "b", parameters, parameters.max_samples)
    problem = uniform_problem(pair, 0.0, 0.0)
    near, points = _resumed(job, problem, parameters)
    fractions = sorted(set(parameters.outlier_fractions))
    rho_b = protecting_radius(parameters.outlier_fraction_b)
    for position, fraction in enumerate(fractions):
        job.progress((position + 1) / (len(fractions) + 1), "sweep", f"outlier fraction {fraction:g}")
        if position < len(points):
            continue
        at = RobustProblem(problem.cost, problem.a, problem.b, protecting_radius(fraction), rho_b)
        found = solve_near(at, parameters, near, job.device)
        points.append(_point(pair, at, found, fraction))
        near = {**near, "f": found.f, "g": found.g}
        job.save_state(near, {"points": points})
    bend = elbow(np.array([point["rho"] for point in points]), np.array([point["distance_power"] for point in points]))
    found_elbow = None
    if bend is not None:
        found_elbow = {"outlier_fraction": fractions[bend.position], "slope_ratio": bend.slope_ratio}
    plain = float(near["plain"]) ** (1 / parameters.p)
    curve_picture(points, plain, found_elbow, job.artifact("curve.png", "image/png"))
    return {
        "object": "robust-distance",
        "samples": [len(pair.rows), len(pair.columns)],
        "plain_distance": plain,
        "curve": points,
        "elbow": found_elbow,
        "warnings": _warnings(points),
    }


def uniform_problem(pair: Pair, rho_a: float, rho_b: float) -> RobustProblem:
    """Transport between what was drawn from the two data sets, every sample of equal mass."""
    n, m = len(pair.rows), len(pair.columns)
    return RobustProblem(pair.drawn_cost(), np.full(n, 1.0 / n), np.full(m, 1.0 / m), rho_a, rho_b)


def solve_near(problem: RobustProblem, ground: Ground, near: dict[str, Float64], device: str) -> RobustTransport:
    """Robust transport started from stored potentials ``f`` and ``g``, ``plain`` being the plain cost."""
    return solve(
        problem,
        solver=ground.solver,
        epsilon=ground.epsilon,
        tolerance=ground.tolerance,
        start=(near["f"], near["g"]),
        plain=float(near["plain"]),
        device=device,
    )


def plain_potentials(job: JobContext, problem: RobustProblem, ground: Ground) -> dict[str, Float64]:
    """Potentials and cost of plain transport, as :func:`solve_near` takes them."""
    job.progress(0.0, "plain", f"{len(problem.a)} x {len(problem.b)} samples")
    kept = RobustProblem(problem.cost, problem.a, problem.b, 0.0, 0.0)
    found = solve(kept, solver=ground.solver, epsilon=ground.epsilon, tolerance=ground.tolerance, device=job.device)
    return {"f": found.f, "g": found.g, "plain": np.array(found.upper)}


def _resumed(
    job: JobContext, problem: RobustProblem, ground: Ground
) -> tuple[dict[str, Float64], list[dict[str, Any]]]:
    saved = job.load_state()
    if saved is not None:
        return saved[0], saved[1]["points"]
    near = plain_potentials(job, problem, ground)
    job.save_state(near, {"points": []})
    return near, []


def _point(pair: Pair, problem: RobustProblem, found: RobustTransport, fraction: float) -> dict[str, Any]:
    root = 1 / pair.ground.p
    return {
        "outlier_fraction": fraction,
        "rho": problem.rho_a,
        "distance": found.upper**root,
        "distance_power": found.upper,
        "lower_bound": max(0.0, found.lower) ** root,
        "gap": found.gap,
        "converged": found.converged,
        "seconds": found.seconds,
        "class_weights": class_weights(pair.drawn, found.weights_a, problem.a),
    }


def _warnings(points: list[dict[str, Any]]) -> list[str]:
    open_ends = [f"{point['outlier_fraction']:g}" for point in points if not point["converged"]]
    warnings = [f"not converged at outlier_fraction {', '.join(open_ends)}"] if open_ends else []
    for point in points:
        warnings += lost_classes(point["class_weights"], f"outlier_fraction {point['outlier_fraction']:g}")
    return warnings
