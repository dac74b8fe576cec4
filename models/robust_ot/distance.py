"""One robust distance from two sides: cost, plain and robust transport, and the report."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch

from models.core.inputs import Float64
from models.core.method import MethodError
from models.core.outputs import Distance, Sides
from models.robust_ot.dual import chi_square, largest_radius
from models.robust_ot.entropic import RobustProblem
from models.robust_ot.ground import cost_matrix, marginal
from models.robust_ot.schema import Ground, Params
from models.robust_ot.solver import RobustTransport, solve
from models.robust_ot.weights import class_weights, lost_classes, outliers

_FREE = 1e-14


def robust_distance(sides: Sides, params: Params, device: torch.device | str = "cpu") -> Distance:
    """The robust distance of ``sides``, with everything that the specification of its answer names.

    Raises:
        InputError: the sides are not valid.
        MethodError: a radius is larger than the side allows.
    """
    a, b = marginal(sides.a, "a"), marginal(sides.b, "b")
    for name, rho, weights in (("rho_a", params.rho_a, a), ("rho_b", params.rho_b, b)):
        if rho is not None and rho > largest_radius(weights) * (1.0 + 1e-9):
            raise MethodError(f"{name}: at most {largest_radius(weights):.6g} for this side, not {rho:g}")
    cost = cost_matrix(sides, params)
    plain = plain_transport(cost, a, b, params, device)
    problem = RobustProblem(cost, a, b, *params.radii)
    found = transport(problem, params, plain, coupling=sides.return_coupling, device=device)
    return Distance(found.upper ** (1 / params.p), _details(sides, params, problem, plain, found), found.coupling)


def plain_transport(
    cost: Float64, a: Float64, b: Float64, ground: Ground, device: torch.device | str = "cpu"
) -> RobustTransport:
    """Transport with both marginals kept, by the solver that ``ground`` names."""
    problem = RobustProblem(cost, a, b, 0.0, 0.0)
    return solve(problem, solver=ground.solver, epsilon=ground.epsilon, tolerance=ground.tolerance, device=device)


def transport(
    problem: RobustProblem,
    ground: Ground,
    near: RobustTransport,
    *,
    coupling: bool = False,
    device: torch.device | str = "cpu",
) -> RobustTransport:
    """Robust transport started from the potentials of a neighbouring solution with no larger radii.

    Where that one costs nothing, neither does this one, and no weight need change.
    """
    if near.upper <= _FREE * float(problem.cost.max()):
        problem = replace(problem, rho_a=0.0, rho_b=0.0)
    return solve(
        problem,
        solver=ground.solver,
        epsilon=ground.epsilon,
        tolerance=ground.tolerance,
        start=(near.f, near.g),
        plain=near.upper,
        coupling=coupling,
        device=device,
    )


def _details(
    sides: Sides, params: Params, problem: RobustProblem, plain: RobustTransport, found: RobustTransport
) -> dict[str, Any]:
    root = 1 / params.p
    classes_a = class_weights(sides.a, found.weights_a, problem.a)
    classes_b = class_weights(sides.b, found.weights_b, problem.b)
    warnings = lost_classes(classes_a, "a") + lost_classes(classes_b, "b")
    if not found.converged:
        warnings.append(
            f"not converged: the bounds are {found.gap:.2g} apart (relative to the cost), "
            f"more than the tolerance {params.tolerance:g}"
        )
    return {
        "distance_power": found.upper,
        "lower_bound": max(0.0, found.lower) ** root,
        "upper_bound": found.upper**root,
        "plain_distance": plain.upper**root,
        "converged": found.converged and plain.converged,
        "weights_a": found.weights_a.tolist(),
        "weights_b": found.weights_b.tolist(),
        "outliers_a": outliers(found.weights_a, problem.a, problem.rho_a),
        "outliers_b": outliers(found.weights_b, problem.b, problem.rho_b),
        "class_weights_a": classes_a,
        "class_weights_b": classes_b,
        "warnings": warnings,
        "stats": {
            "n": len(problem.a),
            "m": len(problem.b),
            "rho_a": problem.rho_a,
            "rho_b": problem.rho_b,
            "chi2_a": chi_square(found.weights_a, problem.a),
            "chi2_b": chi_square(found.weights_b, problem.b),
            "iterations": found.iterations,
            "epsilon": found.epsilon,
            "gap": found.gap if math.isfinite(found.gap) else None,
            "seconds": plain.seconds + found.seconds,
        },
    }
