"""The jobs ``robust-train`` and ``noise-robustness-report``."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from models.core.checkpoint import Checkpoint
from models.core.classification import architecture_of, check_labels, recipe_of, train_classifier
from models.core.classifiers import as_tensor, build_classifier, input_spec
from models.core.dataset import Dataset
from models.core.early_stopping import hold_out
from models.core.inputs import Int64
from models.core.jobs import JobContext
from models.core.method import MethodError
from models.core.noise import corrupt_labels
from models.core.parts import measure_parts
from models.core.probes import stratified_subset
from models.core.run import Run
from models.core.text import vectorise
from models.early_stopping.clusters import clusterability, label_energy, unit_rows
from models.early_stopping.pictures import draw_robustness
from models.early_stopping.schema import Config, NoiseRobustnessReport, RobustTrain
from models.early_stopping.watching import Labelled, watch_training

SLUG = "early-stopping"


def robust_train(job: JobContext, parameters: RobustTrain) -> dict[str, Any]:
    """Train on labels that may be wrong, stop in time, and publish the stopped weights as a version.

    Raises:
        MethodError: the data set or the configuration does not fit.
        Cancelled: the user asked for it.
    """
    config = Config.model_validate(parameters.model_dump(exclude={"version"}))
    checkpoint = train_classifier(SLUG, _dataset(job), config, job)
    try:
        model = job.publish(SLUG, checkpoint, parameters.version)
    except ValueError as error:
        raise MethodError(f"version: {error}") from error
    return {"object": "robust-train", "model": model, "dataset": job.dataset_id, **stopping_facts(checkpoint)}


def stopping_facts(checkpoint: Checkpoint) -> dict[str, Any]:
    """What a result says of the stop; accuracies are on labels as given unless their name says otherwise."""
    figures, outputs = checkpoint.figures, checkpoint.config.outputs
    assert figures is not None
    found = {(figure.name, figure.subject): figure.value for figure in figures.figures}
    stopped, last = found.get(("accuracy", "method")), found.get(("accuracy", "last epoch"))
    return {
        "stopping": {
            "epoch": outputs["epoch"],
            "stopped_at": outputs["stopped_at"],
            "rule": checkpoint.config.config["early_stopping"]["rule"],
            "curve": figures.tables["curve"],
        },
        "accuracy": stopped,
        "noisy_validation_accuracy": found.get(("noisy-validation accuracy", "method")),
        "estimated_clean_accuracy": found.get(("estimated clean accuracy", "method")),
        "relative_distance": found[("relative distance", "method")],
        "final_vs_stopped": None if last is None else {"stopped": stopped, "final": last},
    }


def _dataset(job: JobContext) -> Dataset:
    if job.dataset_id is None:
        raise MethodError("dataset: the job needs one")
    return job.dataset(job.dataset_id)


def report(job: JobContext, parameters: NoiseRobustnessReport) -> dict[str, Any]:
    """Train to the end for every injected rate and tell when to stop; the data's spectrum and clusters beside it.

    Raises:
        MethodError: the data set or the configuration does not fit.
        Cancelled: the user asked for it.
    """
    dataset = _dataset(job)
    check_labels(dataset)
    rates = list(parameters.inject)
    names = [f"{rate:.0%} injected" if rate else "labels as given" for rate in rates]
    rows = measure_parts(job, names, lambda number, part: _watch(dataset, rates[number], parameters.config, part))
    job.progress(1.0, "spectrum")
    draw_robustness(job.artifact("robustness.png", "image/png"), dict(zip(names, rows, strict=True)))
    return {
        "object": "noise-robustness-report", "dataset": job.dataset_id,
        "answer": answer(rows[0]), "rows": rows, **_spectrum(dataset, parameters, job.seed),
    }  # fmt: skip


def answer(row: dict[str, Any]) -> str:
    """The finding of one training in one sentence."""
    if row["cost"] <= 0:
        return f"train all {len(row['curve'])} epochs: the last one is as good as epoch {row['epoch']}"
    return (
        f"stop near epoch {row['epoch']}: the epochs after it cost {100 * row['cost']:.1f} points "
        f"of accuracy on held-out labels, as they are"
    )


def _corrupted(labels: Int64, classes: int, rate: float, seed: int) -> Int64:
    return corrupt_labels(labels, classes, kind="uniform", rate=rate, seed=seed) if rate else labels


def _watch(dataset: Dataset, rate: float, config: Config, run: Run) -> dict[str, Any]:
    stopping, classes = config.early_stopping, len(dataset.class_names)
    assert stopping is not None
    architecture = architecture_of(dataset, config.encoder)
    labels = torch.from_numpy(_corrupted(dataset.require_labels(), classes, rate, run.seed))
    truth = torch.from_numpy(dataset.require_labels())
    positions = hold_out(dataset, stopping, run.seed, run)
    dataset, _ = vectorise(dataset, positions[0], run.seed)
    inputs = as_tensor(dataset, input_spec(dataset, config.image_size))
    training, held = (torch.from_numpy(part) for part in positions)
    known = rate > 0
    sides = [Labelled(inputs[part], labels[part], truth[part] if known else None) for part in (training, held)]
    going_on = config.model_copy(update={"early_stopping": stopping.model_copy(update={"continue_to_end": True})})
    _, facts = watch_training(
        lambda: build_classifier(architecture, sides[0].inputs, classes), sides[0], sides[1], recipe_of(going_on), run,
        seed=run.seed,
    )  # fmt: skip
    return {"injected": rate, "training_samples": len(training), "validation_samples": len(held), **facts}


def _spectrum(dataset: Dataset, parameters: NoiseRobustnessReport, seed: int) -> dict[str, Any]:
    share = min(1.0, parameters.spectrum_samples / len(dataset))
    chosen = dataset.select(stratified_subset(dataset.require_labels(), share, seed)[: parameters.spectrum_samples])
    chosen, _ = vectorise(chosen, np.arange(len(chosen)), seed)
    inputs = as_tensor(chosen, input_spec(chosen, parameters.config.image_size)).double().numpy()
    rows, labels, classes = unit_rows(inputs), chosen.require_labels(), len(dataset.class_names)
    noisy = _corrupted(labels, classes, max(parameters.inject), seed)
    return {
        "clusterability": clusterability(rows, len(np.unique(labels)), seed),
        "spectrum": label_energy(rows, labels, noisy, classes, seed),
    }
