"""The ``mislabeled-detection`` job: rank every sample, flag suspects, clean the data set, measure the gain, report."""

from __future__ import annotations

import json
import time
from typing import Any, cast

import numpy as np
import pyarrow as pa

from models.aum.duplicates import find_duplicates, sample_id
from models.aum.features import Features, embedded_features, extract_features
from models.aum.fit import Schedule, derive_seed, ordinary_schedule
from models.aum.folds import FoldPlan, FoldRuns, run_folds
from models.aum.pictures import SHEET_COLUMNS, SHEET_ROWS, draw_contact_sheet, draw_histogram
from models.aum.ranking import Bools, Ranking, class_table, confusion_table, kept_samples, rank_samples
from models.aum.report import write_report
from models.aum.retrain import held_out, measure_gain, stage_names, trusted
from models.aum.schema import MislabeledDetection
from models.aum.stages import Stages
from models.aum.tables import ranking_items, ranking_table, write_parquet
from models.aum.thresholds import cut_interval, noise_rate, threshold_count
from models.aum.warnings import collect_warnings
from models.core.dataset import Dataset
from models.core.datasets.options import Format
from models.core.datasets.subset import write_dataset
from models.core.devices import pick_device
from models.core.inputs import Int64
from models.core.jobs import JobContext
from models.core.method import MethodError
from models.core.registry import Registry
from models.core.spreadsheets import write_csv

MIN_SAMPLES = 50
_MEDIA = {
    "npz": "application/octet-stream",
    "parquet": "application/vnd.apache.parquet",
    "csv": "text/csv",
    "jsonl": "application/jsonl",
    "zip": "application/zip",
    "tar.gz": "application/gzip",
}


def run(job: JobContext, parameters: MislabeledDetection) -> dict[str, Any]:
    """Find the mislabeled samples of the job's data set; returns the result and leaves the artifacts.

    Resumes from the last finished epoch of the training that was killed.

    Raises:
        MethodError: the data set or a parameter does not fit; names it.
        Cancelled: the user asked for it.
        NonFiniteLogitsError: training diverged.
    """
    started = time.monotonic()
    job.progress(0.0, "validate")
    if job.dataset_id is None:
        raise MethodError("dataset: a labelled data set is needed")
    dataset = job.dataset(job.dataset_id)
    labels = checked_labels(dataset)
    plan = fold_plan(parameters, len(labels), len(dataset.class_names))
    features = _features(job, dataset, parameters)
    test = None
    if parameters.retrain and parameters.trusted_test is not None:
        test = trusted(features, job.dataset(parameters.trusted_test), dataset.class_names, len(labels))
    elif parameters.retrain:
        test = held_out(features, labels, derive_seed(job.seed, 3))
    names = stage_names(parameters.retrain_seeds) if parameters.retrain else []
    stages = Stages(job, dict.fromkeys(plan.names, 1.0) | dict.fromkeys(names, 2.0))

    runs = run_folds(stages, features, labels, len(dataset.class_names), plan, job.seed)
    ranking = rank_samples(runs, labels, parameters.percentile, parameters.vote)
    kept, spared = kept_samples(ranking, labels, len(dataset.class_names), parameters.keep_per_class)
    gain = None
    if test is not None and not kept.all():
        gain = measure_gain(
            stages, features, labels, len(dataset.class_names), kept, test, ordinary_schedule(plan.schedule),
            seeds=parameters.retrain_seeds, seed=job.seed,
        )  # fmt: skip
    table = ranking_table(dataset, labels, ranking, runs, parameters.epochs - parameters.skip_epochs)
    result = _result(dataset, labels, plan, runs, ranking, parameters, job.seed)
    result |= {"ranking": ranking_items(table), "has_more": False, "retrain": gain}
    result["warnings"] = collect_warnings(result, runs, ranking, labels, dataset.class_names, spared, parameters)
    job.progress(0.97, "report")
    result["cleaned"] = _write_cleaned(job, job.dataset_id, dataset, kept)
    _leave_artifacts(job, dataset, labels, runs, ranking, table, result, parameters)
    result["usage"] = {
        "samples": len(labels),
        "encoder": features.architecture,
        "trainings": plan.folds + (len(names) if gain else 0),
        "epochs": parameters.epochs,
        "seconds": round(time.monotonic() - started, 3),
    }
    return result


def checked_labels(dataset: Dataset) -> Int64:
    """The labels of a data set that can be judged.

    Raises:
        MethodError: no labels, fewer than two classes, or too few samples.
    """
    if dataset.labels is None:
        raise MethodError("dataset: it has no labels; there is nothing to check")
    used = len(np.unique(dataset.labels))
    if used < 2:
        raise MethodError(f"dataset: labels of at least two classes are needed, found {used}")
    if len(dataset) < MIN_SAMPLES:
        raise MethodError(f"dataset: at least {MIN_SAMPLES} samples are needed, found {len(dataset)}")
    return dataset.labels


def fold_plan(parameters: MislabeledDetection, samples: int, classes: int) -> FoldPlan:
    """How margins are counted for these parameters.

    Raises:
        MethodError: the threshold sets do not fit into the data.
    """
    count = parameters.threshold_samples
    if count == "auto":
        count = threshold_count(samples, classes)
    elif count > samples // 2 or count * parameters.folds > samples:
        raise MethodError(
            f"threshold_samples: {parameters.folds} disjoint sets of {count} do not fit; "
            f"at most {min(samples // 2, samples // parameters.folds)} of {samples} samples"
        )
    schedule = Schedule(
        parameters.epochs, parameters.batch_size, parameters.learning_rate, parameters.weight_decay, parameters.augment
    )
    return FoldPlan(
        parameters.folds, count, schedule, parameters.skip_epochs, parameters.margin, parameters.trajectories
    )  # fmt: skip


def _features(job: JobContext, dataset: Dataset, parameters: MislabeledDetection) -> Features:
    encoder = parameters.encoder
    if encoder == "auto" and parameters.preset == "paper" and dataset.kind == "images":
        encoder = "resnet32"
    if encoder in ("auto", "small-cnn", "resnet32", "mlp"):
        return extract_features(dataset, encoder, image_size=parameters.image_size, seed=derive_seed(job.seed, 4))
    checkpoint = job.checkpoint(encoder)
    entry = Registry()[checkpoint.config.method]
    if entry.card.capability != "embed":
        raise MethodError(f"encoder: {encoder} gives no embeddings")
    spec = checkpoint.config.input
    model = entry.method.load(checkpoint, pick_device(job.device))

    def embed(data: Dataset) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
        inputs: Any = data.images(spec) if spec.kind == "image" else data.inputs
        batches = [inputs[start : start + 512] for start in range(0, len(data), 512)]
        return np.concatenate([np.asarray(model.predict(batch, entry.params()), np.float32) for batch in batches])

    if {"image": "images", "vector": "vectors", "text": "text"}.get(spec.kind) != dataset.kind:
        raise MethodError(f"encoder: {encoder} takes {spec.kind} inputs, but the data set holds {dataset.kind}")
    return embedded_features(dataset, embed, spec)


def _result(
    dataset: Dataset,
    labels: Int64,
    plan: FoldPlan,
    runs: FoldRuns,
    ranking: Ranking,
    parameters: MislabeledDetection,
    seed: int,
) -> dict[str, Any]:
    cuts = [
        cut_interval(row[chosen], parameters.percentile, derive_seed(seed, 5, fold))
        for fold, (row, chosen) in enumerate(zip(runs.aum, runs.sets, strict=True))
    ]
    return {
        "object": "mislabeled-detection",
        "samples": len(labels),
        "flagged": {"count": int(ranking.suspect.sum()), "share": float(ranking.suspect.mean())},
        "thresholds": ranking.thresholds,
        "threshold_intervals": [list(interval) for interval in cuts],
        "threshold_samples": plan.threshold_count,
        "noise_rate": noise_rate(runs.aum, runs.sets, parameters.vote),
        "per_class": class_table(ranking, labels, dataset.class_names),
        "confusion": confusion_table(ranking, labels, dataset.class_names),
        "duplicates": find_duplicates(dataset, labels),
    }


def _leave_artifacts(
    job: JobContext,
    dataset: Dataset,
    labels: Int64,
    runs: FoldRuns,
    ranking: Ranking,
    table: pa.Table,
    result: dict[str, Any],
    parameters: MislabeledDetection,
) -> None:
    write_parquet(table, job.artifact("ranking.parquet", _MEDIA["parquet"]))
    write_csv(table, job.artifact("ranking.csv", _MEDIA["csv"]))
    if runs.trajectories is not None:
        with job.artifact("trajectories.npz", _MEDIA["npz"]).open("wb") as file:
            np.savez_compressed(file, margins=runs.trajectories)
    histogram = job.artifact("histogram.png", "image/png")
    draw_histogram(histogram, ranking, runs)
    worst = [int(index) for index in ranking.order[: SHEET_COLUMNS * SHEET_ROWS] if ranking.eligible[index]]
    if dataset.kind == "images":
        draw_contact_sheet(job.artifact("suspects.png", "image/png"), dataset, labels, ranking, worst)
    settings = parameters.model_dump(exclude_none=True) | {"seed": job.seed}
    report = job.artifact("report.html", "text/html")
    write_report(report, dataset, labels, ranking, worst, result, histogram, settings)


def _write_cleaned(job: JobContext, dataset_id: str, dataset: Dataset, kept: Bools) -> dict[str, Any]:
    """Write what is kept, in the format that came in and as a list of ids; registers it as a new data set."""
    path, kind = job.dataset_file(dataset_id)
    positions = np.flatnonzero(kept)
    name = f"cleaned.{kind}"
    cleaned = job.artifact(name, _MEDIA[kind])
    write_dataset(path, cast(Format, kind), positions, cleaned)
    listed = {"indices": positions.tolist(), "ids": [sample_id(dataset, int(index)) for index in positions]}
    job.artifact("cleaned.json", "application/json").write_text(json.dumps(listed), encoding="utf-8")
    registered = job.register_dataset(cleaned, f"{dataset.name or dataset_id} (cleaned)")
    return {"dataset": registered, "samples": len(positions), "artifact": name}
