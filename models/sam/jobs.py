"""The jobs ``rho-search`` and ``sharpness-report``."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.core.classification import accuracy, architecture_of, check_labels, recipe_of
from models.core.classifiers import as_tensor, build_classifier, input_spec, logits_of
from models.core.devices import pick_device
from models.core.early_stopping import validation_split
from models.core.inputs import Float64
from models.core.jobs import JobContext
from models.core.method import MethodError
from models.core.parts import Row, measure_parts
from models.core.probes import stratified_subset
from models.core.registry import parse_model_id
from models.core.run import Run
from models.core.supervised import DivergedError, Fitted, fit_classifier
from models.core.text import vectorise
from models.core.trainer_options import SharpnessAware
from models.sam.curvature import hessian_product, hutchinson_trace, spectrum_ends, trainable
from models.sam.landscape import ASCENT_STEPS, Loss, random_increase, slices, worst_increase
from models.sam.pictures import draw_landscape, draw_search
from models.sam.schema import Config, RhoSearch, SharpnessReport

DEFAULT_MODEL = "sam"


def search(job: JobContext, parameters: RhoSearch) -> dict[str, Any]:
    """Train with every radius and choose the one of the best accuracy on a held-out part; ties: the smaller one.

    Raises:
        MethodError: the data set or the configuration does not fit.
        Cancelled: the user asked for it.
    """
    if job.dataset_id is None:
        raise MethodError("dataset: the job needs one")
    dataset = job.dataset(job.dataset_id)
    check_labels(dataset)
    config = parameters.config
    architecture = architecture_of(dataset, config.encoder)
    chosen, held = validation_split(dataset, parameters.validation_share, job.seed)
    dataset, _ = vectorise(dataset, chosen, job.seed)
    spec = input_spec(dataset, config.image_size)
    if not len(held):
        raise MethodError("validation_share: it holds out no sample")
    (inputs, labels), validation = (
        (as_tensor(part, spec), torch.from_numpy(part.require_labels()))
        for part in (dataset.select(chosen), dataset.select(held))
    )
    plan = [(rho, seed) for seed in range(parameters.seeds) for rho in parameters.grid]

    def measure(number: int, part: Run) -> Row:
        rho, seed = plan[number]
        options = _with_radius(config, parameters.kind, rho)
        row: Row = {"rho": rho, "seed": seed}
        try:
            fitted = fit_classifier(
                lambda: build_classifier(architecture, inputs, len(dataset.class_names)), inputs, labels,
                recipe_of(options), part, seed=job.seed + seed,
            )  # fmt: skip
        except DivergedError:
            return row | _collapsed()
        return row | _scores(fitted, inputs, labels, validation)

    rows = measure_parts(job, [f"rho {rho:g}, seed {seed}" for rho, seed in plan], measure)
    best = choose(rows)
    draw_search(job.artifact("rho.png", "image/png"), rows, best)
    option = None if best is None else _with_radius(config, parameters.kind, best).sharpness_aware
    return {
        "object": "rho-search", "dataset": job.dataset_id, "rho": best, "rows": rows,
        "training_samples": len(labels), "validation_samples": len(held),
        "sharpness_aware": None if option is None else option.model_dump(mode="json"),
    }  # fmt: skip


def _with_radius(config: Config, kind: str, rho: float) -> Config:
    changed = {"kind": kind, "rho": rho} if rho else {"kind": "none", "rho": None}
    options = SharpnessAware.model_validate(config.sharpness_aware.model_dump() | changed)
    return config.model_copy(update={"sharpness_aware": options})


def _scores(fitted: Fitted, inputs: Tensor, labels: Tensor, validation: tuple[Tensor, Tensor]) -> Row:
    predicted = logits_of(fitted.network, inputs).argmax(dim=1)
    classes = torch.bincount(labels)
    largest = float(torch.bincount(predicted).max()) / len(predicted)
    training = float((predicted == labels).double().mean())
    return {
        "validation_accuracy": accuracy(fitted.network, *validation), "training_accuracy": training,
        "loss": float(fitted.curve[-1]["loss"] or 0), "perturbed_steps": fitted.perturbed_steps,
        "largest_predicted_share": largest, "diverged": 0,
        "collapsed": int(training <= 1.02 * float(classes.max()) / len(labels)),
    }  # fmt: skip


def _collapsed() -> Row:
    names = ("validation_accuracy", "training_accuracy", "loss", "perturbed_steps", "largest_predicted_share")
    return {**dict.fromkeys(names), "diverged": 1, "collapsed": 1}


def choose(rows: list[Row]) -> float | None:
    """The radius of the best mean held-out accuracy among those with which no training collapsed."""
    means: dict[float, float] = {}
    for rho in sorted({float(row["rho"] or 0) for row in rows}):
        mine = [row for row in rows if row["rho"] == rho]
        if not any(row["collapsed"] for row in mine):
            means[rho] = float(np.mean([float(row["validation_accuracy"] or 0) for row in mine]))
    return max(means, key=lambda rho: (means[rho], -rho)) if means else None


def report(job: JobContext, parameters: SharpnessReport) -> dict[str, Any]:
    """Curvature and landscape of the loss of the job's model, or of the shipped one, on the job's data set.

    Raises:
        MethodError: the model offers no loss, or not on this data.
        UnknownMethodError, UnknownVersionError: there is no such model.
        Cancelled: the user asked for it.
    """
    if job.dataset_id is None:
        raise MethodError("dataset: the job needs one")
    model = job.model or DEFAULT_MODEL
    dataset = job.dataset(job.dataset_id)
    if len(dataset) > parameters.samples:
        share = parameters.samples / len(dataset)
        dataset = dataset.select(stratified_subset(dataset.require_labels(), share, job.seed))
    entry = job.registry[parse_model_id(model)[0]]
    with torch.inference_mode(False), torch.enable_grad():
        method = entry.method.load(job.checkpoint(model), pick_device(job.device))
        module, loss = method.objective(dataset)
        facts = measure_sharpness(trainable(module), loss, parameters, job)
    return {"object": "sharpness-report", "model": model, "dataset": job.dataset_id, "samples": len(dataset), **facts}


def measure_sharpness(weights: list[Tensor], loss: Loss, parameters: SharpnessReport, run: Run) -> dict[str, Any]:
    """Everything that a report says of ``loss`` at ``weights``; writes ``landscape.png`` and ``landscape.json``."""
    generator = torch.Generator().manual_seed(run.seed)
    size = sum(weight.numel() for weight in weights)
    run.progress(0.05, "eigenvalues", f"{size:,} weights")
    value = loss()
    product = hessian_product(weights, value)
    start = torch.randn(size, generator=generator).to(value)
    ends = spectrum_ends(product, start, parameters.iterations)
    run.progress(0.3, "trace")
    trace, trace_error = hutchinson_trace(product, start, parameters.probes, generator)
    run.progress(0.6, "ascent")
    one_step, most = (worst_increase(weights, loss, parameters.rho, steps) for steps in (1, ASCENT_STEPS))
    random, random_error = random_increase(weights, loss, parameters.rho, generator)
    run.progress(0.7, "slices")
    positions, plane = slices(weights, loss, parameters.span, parameters.points, generator)
    draw_landscape(run.artifact("landscape.png", "image/png"), positions, plane)
    path = run.artifact("landscape.json", "application/json")
    path.write_text(json.dumps({"positions": positions.tolist(), "loss": _finite(plane)}), encoding="utf-8")
    fifth = ends.largest(5)
    return {
        "seed": run.seed, "weights": size, "loss": value.item(),
        "lambda_max": ends.largest(1), "lambda_5": fifth, "lambda_min": float(ends.values[-1]),
        "ratio": ends.largest(1) / fifth if fifth > 0 else None, "residual": ends.residual,
        "trace": trace, "trace_standard_error": trace_error, "rho": parameters.rho,
        "max_increase_1_step": one_step, f"max_increase_{ASCENT_STEPS}_steps": most,
        "random_increase": random, "random_increase_standard_error": random_error,
        "slice": {"positions": positions.tolist(), "loss": _finite(plane[len(positions) // 2])},
    }  # fmt: skip


def _finite(values: Float64) -> list[Any]:
    """As lists, with None for losses that are not finite: JSON knows no infinity."""
    if values.ndim > 1:
        return [_finite(row) for row in values]
    return [float(value) if np.isfinite(value) else None for value in values]
