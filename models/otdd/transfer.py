"""The job ``transfer-rank``: which source data set should a small target be pretrained on?"""

from __future__ import annotations

from typing import Any

import numpy as np

from models.core.dataset import Dataset
from models.core.devices import pick_device
from models.core.jobs import JobContext
from models.core.method import MethodError
from models.core.outputs import Sides
from models.otdd.distance import otdd
from models.otdd.jobs import common_sides
from models.otdd.pretraining import pretrain, target_error
from models.otdd.schema import Params, TransferRank


def transfer_rank(job: JobContext, parameters: TransferRank) -> dict[str, Any]:
    """Sources from the nearest to the farthest, with the measured gain of pretraining where it is asked for.

    Raises:
        MethodError: the data sets cannot be compared, or the gain cannot be measured on them.
    """
    assert job.dataset_id is not None
    ids = [source for source in dict.fromkeys(parameters.sources) if source != job.dataset_id]
    if not ids:
        raise MethodError("sources: name at least one data set that is not the target")
    target, sources = job.dataset(job.dataset_id), [job.dataset(source) for source in ids]
    target_side, *sides = common_sides(job, [target, *sources], parameters.features)
    params = Params.model_validate(parameters.model_dump(include=set(Params.model_fields)))
    saved = job.load_state()
    rows: list[dict[str, Any]] = saved[1]["rows"] if saved else []
    for position, (source, dataset, cloud) in enumerate(zip(ids, sources, sides, strict=True)):
        fraction = position / len(ids)
        job.progress(fraction, "sources", dataset.name)
        if position < len(rows):
            continue
        found = otdd(Sides(cloud, target_side), params, job.device)
        row: dict[str, Any] = {"dataset": source, "name": dataset.name, "distance": found.distance}
        row["converged"] = found.details["converged"]
        if parameters.measure_gain:
            row |= _gain(job, fraction, dataset, target, parameters)
        rows.append(row)
        job.save_state({}, {"rows": rows})
    ranked = sorted(rows, key=lambda row: row["distance"])
    return {
        "object": "transfer-rank",
        "target": job.dataset_id,
        "ranking": [{"rank": rank, **row} for rank, row in enumerate(ranked, start=1)],
    }


def _gain(
    job: JobContext, fraction: float, source: Dataset, target: Dataset, parameters: TransferRank
) -> dict[str, float]:
    """Relative drop of the target's error by pretraining, over seeds; half of the target is held out."""
    if source.kind != "images" or source.labels is None or target.labels is None:
        raise MethodError("measure_gain: needs labelled data sets of pictures")
    gains, device = [], pick_device(job.device)
    for seed in range(parameters.gain_seeds):
        rows = np.random.default_rng(seed).permutation(len(target))
        few, test = target.select(rows[: len(rows) // 2]), target.select(rows[len(rows) // 2 :])
        network = pretrain(source, seed, device, lambda: job.progress(fraction, "pretraining", source.name))
        scratch = target_error(few, test, parameters.shots, seed, device)
        pretrained = target_error(few, test, parameters.shots, seed, device, network)
        gains.append(1.0 - pretrained / max(scratch, 1e-9))
    return {"gain": float(np.mean(gains)), "gain_spread": float(np.std(gains, ddof=1)) if len(gains) > 1 else 0.0}
