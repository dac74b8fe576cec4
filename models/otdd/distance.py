"""The distance between two labelled data sets (Alvarez-Melis and Fusi 2020, sections 3 and 4)."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.core.inputs import Float64, Int64
from models.core.method import MethodError
from models.core.outputs import Distance, Sides
from models.core.transport.costs import GroundCost, LabelCost
from models.core.transport.coupling import RoundedCoupling
from models.core.transport.ctransform import lower_bound
from models.core.transport.exact import exact_transport
from models.core.transport.labels import LabelTables, label_tables
from models.core.transport.moments import class_moments
from models.core.transport.sinkhorn import sinkhorn, sinkhorn_self
from models.otdd.schema import Params
from models.otdd.sides import Prepared, prepare

MEMORY_BYTES = 6 << 30
DENSE_BYTES = 512 << 20
MEDIAN_ROWS = 512
COUPLED_PER_ROW = 16

Plan = tuple[Int64, Int64, Float64]


@dataclass(frozen=True, eq=False)
class Transport:
    """What a solver found.

    Attributes:
        power: the value, to the power p.
        converged: the solver reached its tolerance.
        marginal_error: largest L1 distance of a marginal of the coupling from its weights.
        classes: float64 ``(C, C')`` mass between classes; None without labels.
        plan: the coupling's entries where they were asked for.
        facts: what else the solver tells.
    """

    power: float
    converged: bool
    marginal_error: float
    classes: Float64 | None
    plan: Plan | None
    facts: dict[str, Any] = field(default_factory=dict)


def otdd(sides: Sides, params: Params, device: torch.device | str = "cpu") -> Distance:
    """The distance of ``sides``, the mean over ``params.repeats`` subsamples where a side is drawn from.

    Raises:
        MethodError: the sides are not valid for these parameters, or too large for the machine.
    """
    if sides.cost is not None:
        raise MethodError("cost_matrix: this distance computes its own costs from features and classes")
    started = time.perf_counter()
    drawn = max(len(sides.a.points), len(sides.b.points)) > params.max_samples
    powers, first = [], None
    for repeat in range(params.repeats if drawn else 1):
        a, b = prepare(sides.a, sides.b, params, params.seed + repeat * 1009)
        _check_memory(len(a.rows), len(b.rows), params)
        tables = _tables(a, b, params, device)
        keep = sides.return_coupling and first is None
        found = _solve(a, b, tables, params, keep, torch.device(device))
        powers.append(max(0.0, found.power))
        first = first or (a, b, tables, found)
    assert first is not None
    roots = np.array(powers) ** (1.0 / params.p)
    spread = float(roots.std(ddof=1)) if len(roots) > 1 else None
    details = _details(*first, params, spread, time.perf_counter() - started)
    details["distance_power"] = float(np.mean(powers))
    return Distance(float(roots.mean()), details, _original(first[3].plan, first[0], first[1]))


def _tables(a: Prepared, b: Prepared, params: Params, device: torch.device | str) -> LabelTables | None:
    if params.label_distance == "none":
        return None
    within = params.solver == "sinkhorn-divergence"
    return label_tables(
        a.side, b.side, params.label_distance, covariance=params.covariance, p=params.p, within=within, device=device
    )


def _solve(
    a: Prepared, b: Prepared, tables: LabelTables | None, params: Params, keep: bool, device: torch.device
) -> Transport:
    between = _cost(a, b, None if tables is None else tables.ab, params, device)
    if params.solver == "exact":
        return _exact(a, b, between, keep)
    epsilon = params.epsilon * median_cost(between)
    weights = torch.from_numpy(a.weights).to(device), torch.from_numpy(b.weights).to(device)
    costs = _held(between)
    solved = sinkhorn(*weights, costs, epsilon)
    coupling = RoundedCoupling.of(solved, *weights)
    facts: dict[str, Any] = {
        "epsilon": epsilon,
        "iterations": solved.iterations,
        "transport_cost": coupling.cost(costs),
        "entropic_cost": float(solved.value),
    }
    facts["gap"] = facts["transport_cost"] - lower_bound(*weights, costs, solved.g[0])
    converged, power = bool(solved.converged), facts["transport_cost"]
    if params.solver == "sinkhorn-divergence":
        for prepared, weight, table in ((a, weights[0], "aa"), (b, weights[1], "bb")):
            within = _cost(prepared, prepared, None if tables is None else getattr(tables, table), params, device)
            own = sinkhorn_self(weight, _held(within), epsilon)
            facts[f"entropic_cost_{table}"] = float(own.value)
            converged = converged and bool(own.converged)
        power = facts["entropic_cost"] - 0.5 * (facts["entropic_cost_aa"] + facts["entropic_cost_bb"])
    classes = _class_mass(coupling, a, b, device)
    plan = _numpy(coupling.largest(COUPLED_PER_ROW)) if keep else None
    return Transport(power, converged, float(solved.marginal_error), classes, plan, facts)


def _held(cost: GroundCost) -> Tensor | GroundCost:
    """The whole matrix in float32 where it is small: it is read about ten times, and each time is a matrix product."""
    n, m = cost.shape
    return cost.dense(torch.float32) if 4 * n * m <= DENSE_BYTES else cost


def _exact(a: Prepared, b: Prepared, between: GroundCost, keep: bool) -> Transport:
    found = exact_transport(a.weights, b.weights, between.numpy(), plan=True)
    assert found.plan is not None
    classes = None
    if a.side.labels is not None and b.side.labels is not None:
        classes = np.zeros((a.side.labels.max() + 1, b.side.labels.max() + 1))
        np.add.at(classes, (a.side.labels[found.plan[0]], b.side.labels[found.plan[1]]), found.plan[2])
    facts = {"gap": found.gap, "message": found.message} if found.message else {"gap": found.gap}
    return Transport(found.cost, found.converged, found.marginal_error, classes, found.plan if keep else None, facts)


def _cost(a: Prepared, b: Prepared, table: Float64 | None, params: Params, device: torch.device) -> GroundCost:
    """``lambda_x d(x, x')^p + lambda_y W(y, y')^p``; augmented points carry their class's moments instead."""
    if params.method == "augmented":
        return GroundCost(_augmented(a, params, device), _augmented(b, params, device), 2)
    labels = None
    if table is not None and a.side.labels is not None and b.side.labels is not None:
        rows, columns = (torch.from_numpy(side.labels).to(device) for side in (a.side, b.side))
        labels = LabelCost(rows, columns, params.lambda_y * torch.from_numpy(table).to(device) ** params.p)
    x, y = (torch.from_numpy(prepared.side.points).to(device) for prepared in (a, b))
    return GroundCost(x, y, params.p, scale=params.lambda_x, labels=labels)


def _augmented(prepared: Prepared, params: Params, device: torch.device) -> Tensor:
    """``[x; mu_y; sigma_y]`` of every point, weighted: squared Euclidean distances are then the ground cost."""
    labels = prepared.side.labels
    assert labels is not None
    points, indices = torch.from_numpy(prepared.side.points).to(device), torch.from_numpy(labels).to(device)
    weights = torch.from_numpy(prepared.weights).to(device)
    moments = class_moments(points, indices, weights, int(labels.max()) + 1, "diagonal")
    classes = torch.cat([moments.means, moments.covariances.clamp_min(0.0).sqrt()], dim=1)
    return torch.cat([params.lambda_x**0.5 * points, params.lambda_y**0.5 * classes[indices]], dim=1)


def median_cost(cost: GroundCost) -> float:
    """Median over evenly spaced rows, positive: the scale that epsilon is a fraction of."""
    step = max(1, cost.shape[0] // MEDIAN_ROWS)
    labels = None if cost.labels is None else replace(cost.labels, rows=cost.labels.rows[::step])
    rows = replace(cost, x=cost.x[::step], labels=labels).dense()
    median = float(rows.median())
    return median if median > 0.0 else float(rows.max()) or 1.0


def _class_mass(coupling: RoundedCoupling, a: Prepared, b: Prepared, device: torch.device) -> Float64 | None:
    if a.side.labels is None or b.side.labels is None:
        return None
    rows, columns = (torch.from_numpy(side.labels).to(device) for side in (a.side, b.side))
    shape = (int(rows.max()) + 1, int(columns.max()) + 1)
    found: Float64 = coupling.grouped(rows, columns, shape).cpu().numpy()
    return found


def _numpy(plan: tuple[Tensor, Tensor, Tensor]) -> Plan:
    rows, columns, mass = (part.cpu().numpy() for part in plan)
    return rows, columns, mass


def _original(plan: Plan | None, a: Prepared, b: Prepared) -> Plan | None:
    return None if plan is None else (a.rows[plan[0]], b.rows[plan[1]], plan[2])


def _check_memory(n: int, m: int, params: Params) -> None:
    """Estimate the peak of the solver.

    Raises:
        MethodError: it is more than this service allows.
    """
    entry = 32 if params.solver == "exact" else 12
    largest = n * m if params.solver != "sinkhorn-divergence" else max(n, m) ** 2
    if largest * entry > MEMORY_BYTES:
        raise MethodError(
            f"max_samples: {n} x {m} samples with the solver {params.solver} need about "
            f"{largest * entry / 1e9:.1f} GB, more than {MEMORY_BYTES / 1e9:.1f} GB"
        )


def _details(
    a: Prepared,
    b: Prepared,
    tables: LabelTables | None,
    found: Transport,
    params: Params,
    spread: float | None,
    seconds: float,
) -> dict[str, Any]:
    details: dict[str, Any] = {
        "p": params.p,
        "convention": "squared costs without a factor 1/2" if params.p == 2 else "costs without a factor",
        "converged": found.converged and (tables is None or tables.converged),
        "spread": spread,
        "stats": {
            "n": len(a.rows),
            "m": len(b.rows),
            "given": [a.given, b.given],
            "classes": [len(a.side.class_names), len(b.side.class_names)],
            "dropped_classes": a.dropped + b.dropped,
            "clustered": [a.clustered, b.clustered],
            "solver": params.solver,
            "marginal_error": found.marginal_error,
            "seconds": seconds,
            **found.facts,
        },
    }
    if tables is not None:
        details["classes"] = {"a": a.side.class_names, "b": b.side.class_names}
        details["label_distances"] = tables.ab.tolist()
        details["stats"] |= {
            "label_distance": params.label_distance,
            "explained_variance": tables.explained_variance,
            "shrinkage": tables.shrinkage,
        }
    if found.classes is not None:
        details["class_coupling"] = found.classes.tolist()
        details["class_matching"] = _matching(found.classes, a, b)
    return details


def _matching(mass: Float64, a: Prepared, b: Prepared) -> list[dict[str, Any]]:
    """For each class of a, the class of b that most of its mass goes to."""
    share = mass / mass.sum(axis=1, keepdims=True)
    return [
        {"a": a.side.class_names[i], "b": b.side.class_names[j], "share": float(share[i, j])}
        for i, j in enumerate(share.argmax(axis=1))
    ]
