"""The job ``outlier-ranking``: every sample of a data set weighed against a trusted one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet

from models.core.inputs import Float64, Int64
from models.core.jobs import JobContext
from models.core.method import MethodError
from models.core.spreadsheets import write_csv
from models.robust_ot.bounds import protecting_radius
from models.robust_ot.dual import robust_expectation
from models.robust_ot.jobs import plain_potentials, solve_near, uniform_problem
from models.robust_ot.pairs import Pair, load_pair
from models.robust_ot.pictures import weight_histogram
from models.robust_ot.pollution import area_under_roc
from models.robust_ot.schema import OutlierRankingParameters
from models.robust_ot.weights import class_weights, lost_classes


@dataclass(frozen=True, eq=False)
class _Scores:
    """Of every sample, ``(N,)``: its weight, its potential, and its distance to the nearest trusted sample."""

    weight: Float64
    potential: Float64
    nearest: Float64

    def places(self) -> Int64:
        """Place of each sample by weight; equal weights (zero, mostly) by how far the sample's mass would travel."""
        keys = np.stack([self.weight, -self.potential], axis=1)
        return np.unique(keys, axis=0, return_inverse=True)[1].reshape(-1)


def outlier_ranking(job: JobContext, parameters: OutlierRankingParameters) -> dict[str, Any]:
    """Weights of all samples, lowest first, with class weights, files, and the AUROC where the truth is given.

    The potentials are found on what was drawn; they extend to every sample as ``f(x) = min_j (c(x, y_j) - g_j)``, and
    the weights follow exactly from those.

    Raises:
        MethodError: the data sets cannot be compared, or ``truth`` names no sample.
    """
    pair = load_pair(job, parameters.trusted, "trusted", parameters, parameters.max_samples)
    count = len(pair.first)
    truth = _marked(parameters.truth, count)
    solution, facts = _solved(job, pair, parameters)
    job.progress(0.8, "ranking", f"{count} samples")
    scores = _scores(pair, solution, protecting_radius(parameters.outlier_fraction))
    places = scores.places()
    order = np.argsort(places, kind="stable")
    outlier = np.zeros(count, dtype=bool)
    outlier[order[: round(parameters.outlier_fraction * count)]] = True
    outlier &= scores.weight < 1.0
    table = _table(pair, scores, order, outlier)
    job.progress(0.9, "report")
    pyarrow.parquet.write_table(table, job.artifact("ranking.parquet", "application/vnd.apache.parquet"))
    write_csv(table, job.artifact("ranking.csv", "text/csv"))
    weight_histogram(scores.weight, truth, job.artifact("histogram.png", "image/png"))
    classes = class_weights(pair.a, scores.weight, np.full(count, 1.0 / count))
    return {
        "object": "outlier-ranking",
        "samples": count,
        "drawn": [len(pair.rows), len(pair.columns)],
        **facts,
        "outliers": {"count": int(outlier.sum()), "share": float(outlier.mean())},
        "auroc": None if truth is None else area_under_roc(-places.astype(np.float64), truth),
        "auroc_nearest": None if truth is None else area_under_roc(scores.nearest, truth),
        "class_weights": classes,
        "warnings": lost_classes(classes, "dataset") + ([] if facts["converged"] else ["the bounds did not converge"]),
        "ranking": table.to_pylist(),
        "has_more": False,
    }


def _marked(truth: list[int], count: int) -> npt.NDArray[np.bool_] | None:
    if not truth:
        return None
    indices = np.array(truth)
    if indices.min() < 0 or indices.max() >= count:
        raise MethodError(f"parameters.truth: indices lie in 0..{count - 1}")
    marked = np.zeros(count, dtype=bool)
    marked[indices] = True
    if marked.all():
        raise MethodError("parameters.truth: every sample is named an outlier")
    return marked


def _solved(
    job: JobContext, pair: Pair, parameters: OutlierRankingParameters
) -> tuple[dict[str, Float64], dict[str, Any]]:
    """Trusted potentials and drawn weights, with the bounds; from the resume point where there is one."""
    saved = job.load_state()
    if saved is not None and saved[1]:
        return saved
    problem = uniform_problem(pair, protecting_radius(parameters.outlier_fraction), 0.0)
    near = saved[0] if saved is not None else plain_potentials(job, problem, parameters)
    job.save_state(near, {})
    job.progress(0.2, "robust", f"{len(problem.a)} x {len(problem.b)} samples")
    found = solve_near(problem, parameters, near, job.device)
    root = 1 / parameters.p
    solution = {"g": found.g, "weights": found.weights_a}
    facts = {
        "distance": found.upper**root,
        "lower_bound": max(0.0, found.lower) ** root,
        "plain_distance": float(near["plain"]) ** root,
        "gap": found.gap,
        "converged": found.converged,
    }
    job.save_state(solution, facts)
    return solution, facts


def _scores(pair: Pair, solution: dict[str, Float64], rho: float) -> _Scores:
    potentials, nearest = [], []
    for block in pair.blocks():
        potentials.append((block - solution["g"]).min(axis=1))
        nearest.append(block.min(axis=1))
    potential, count = np.concatenate(potentials), len(pair.first)
    if count == len(pair.rows):
        weight = solution["weights"]
    else:
        weight = robust_expectation(potential, np.full(count, 1.0 / count), rho).weights
    return _Scores(weight, potential, np.concatenate(nearest) ** (1 / pair.ground.p))


def _table(pair: Pair, scores: _Scores, order: Int64, outlier: npt.NDArray[np.bool_]) -> pa.Table:
    dataset = pair.first
    identifiers = dataset.sample_ids or [str(index) for index in range(len(dataset))]
    labels: list[str | None] = [None] * len(dataset)
    if dataset.labels is not None:
        labels = [dataset.class_names[label] for label in dataset.labels]
    return pa.table(
        {
            "index": order,
            "id": pa.array([str(identifiers[i]) for i in order], pa.string()),
            "label": pa.array([labels[i] for i in order], pa.string()),
            "rank": np.arange(1, len(order) + 1),
            "weight": scores.weight[order],
            "outlier": outlier[order],
            "nearest_trusted": scores.nearest[order],
        }
    )
