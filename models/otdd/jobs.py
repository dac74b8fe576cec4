"""The job ``dataset-distance``: all pairs of several data sets, resumable pair by pair."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from models.core.dataset import Dataset
from models.core.inputs import ImageSpec, InputError, VectorSpec
from models.core.jobs import JobContext
from models.core.method import MethodError
from models.core.outputs import Distance, Side, Sides
from models.core.transport.clouds import picture_spec, side
from models.otdd.distance import otdd
from models.otdd.pictures import heat_map
from models.otdd.schema import DatasetDistance, Params

EMBEDDED_AT_ONCE = 256


def dataset_distance(job: JobContext, parameters: DatasetDistance) -> dict[str, Any]:
    """Distance matrix with, for each pair, class distances, class coupling and convergence facts.

    Raises:
        MethodError: fewer than two data sets, or some that cannot be compared.
    """
    ids = list(dict.fromkeys([*([job.dataset_id] if job.dataset_id else []), *parameters.datasets]))
    if len(ids) < 2:
        raise MethodError("datasets: name at least two data sets, the job's own included")
    loaded = [job.dataset(dataset_id) for dataset_id in ids]
    sides = common_sides(job, loaded, parameters.features)
    params = Params.model_validate(parameters.model_dump(include=set(Params.model_fields)))
    pairs = list(itertools.combinations(range(len(ids)), 2))
    saved = job.load_state()
    done: list[dict[str, Any]] = saved[1]["pairs"] if saved else []
    for position, (i, j) in enumerate(pairs):
        job.progress(position / len(pairs), "distances", f"{loaded[i].name} and {loaded[j].name}")
        if position >= len(done):
            found = otdd(Sides(sides[i], sides[j], parameters.return_coupling), params, job.device)
            done.append({"a": ids[i], "b": ids[j], "distance": found.distance, **found.details})
            if parameters.return_coupling:
                _write_coupling(job, ids[i], ids[j], found)
            job.save_state({}, {"pairs": done})
    matrix = np.zeros((len(ids), len(ids)))
    for (i, j), pair in zip(pairs, done, strict=True):
        matrix[i, j] = matrix[j, i] = pair["distance"]
    names = [dataset.name or dataset_id for dataset, dataset_id in zip(loaded, ids, strict=True)]
    heat_map(matrix, names, job.artifact("distances.png", "image/png"))
    return {
        "object": "dataset-distance",
        "datasets": [
            {"id": dataset_id, "name": name, "samples": len(dataset), "classes": len(dataset.class_names)}
            for dataset_id, name, dataset in zip(ids, names, loaded, strict=True)
        ],
        "distances": matrix.tolist(),
        "pairs": done,
        "warnings": _warnings(done),
    }


def common_sides(job: JobContext, datasets: list[Dataset], features: str) -> list[Side]:
    """All data sets as clouds of one space: pixels of a common size, vectors, or a model's embeddings.

    Raises:
        MethodError: they hold different kinds, or the model does not embed them.
    """
    kinds = {dataset.kind for dataset in datasets}
    if len(kinds) > 1:
        raise MethodError(f"datasets: {' and '.join(sorted(kinds))} cannot be compared")
    if features != "raw":
        return [_embedded(job, dataset, features) for dataset in datasets]
    try:
        spec = picture_spec(*datasets) if kinds == {"images"} else None
        return [side(dataset, spec) for dataset in datasets]
    except InputError as error:
        raise MethodError(str(error)) from error


def _embedded(job: JobContext, dataset: Dataset, model: str) -> Side:
    checkpoint = job.checkpoint(model)
    entry = job.registry[checkpoint.config.method]
    if entry.card.capability != "embed":
        raise MethodError(f"features: `{model}` does not embed")
    method = entry.method.load(checkpoint, torch.device(job.device))
    spec = checkpoint.config.input
    if dataset.kind == "images" and isinstance(spec, ImageSpec):
        inputs: Any = dataset.images(spec)
    elif dataset.kind == "vectors" and isinstance(spec, VectorSpec) and dataset.vectors().shape[1] == spec.size:
        inputs = dataset.vectors()
    else:
        raise MethodError(f"features: `{model}` does not take these {dataset.kind}")
    with torch.inference_mode():
        rows = [
            np.asarray(method.predict(inputs[start : start + EMBEDDED_AT_ONCE], entry.default_params))
            for start in range(0, len(inputs), EMBEDDED_AT_ONCE)
        ]
    return Side(np.concatenate(rows).astype(np.float64), labels=dataset.labels, class_names=dataset.class_names)


def _write_coupling(job: JobContext, a: str, b: str, found: Distance) -> None:
    if found.coupling is None:
        return
    table = pa.table(dict(zip(("row", "column", "mass"), found.coupling, strict=True)))
    path = job.artifact(f"coupling-{a}-{b}.parquet", "application/vnd.apache.parquet")
    pq.write_table(table, path)


def _warnings(pairs: list[dict[str, Any]]) -> list[str]:
    warnings = [f"{pair['a']} and {pair['b']}: the solver did not converge" for pair in pairs if not pair["converged"]]
    for pair in pairs:
        warnings += [
            f"class {dropped['class']} of {pair[dropped['side']]} has {dropped['samples']} samples and was left out"
            for dropped in pair["stats"]["dropped_classes"]
        ]
    return list(dict.fromkeys(warnings))
