"""The job ``adapt``: a classifier of labelled samples for another data set without labels, part of which is junk."""

from __future__ import annotations

import shutil
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet
import torch

from models.core.checkpoint import CONFIG, WEIGHTS, Checkpoint, CheckpointConfig
from models.core.classification import check_labels
from models.core.classifiers import as_tensor, input_spec, logits_of
from models.core.dataset import Dataset
from models.core.devices import pick_device
from models.core.inputs import Float64, ImageSpec, InputError, VectorSpec
from models.core.jobs import JobContext
from models.core.method import MethodError
from models.core.outputs import Side
from models.core.run import Run
from models.core.spreadsheets import write_csv
from models.core.training import pack_training, unpack_training
from models.robust_ot.adaptation import Adaptation
from models.robust_ot.dual import chi_square
from models.robust_ot.pairs import load_both
from models.robust_ot.pictures import weight_histogram
from models.robust_ot.schema import AdaptParameters
from models.robust_ot.weights import class_weights, lost_classes

SAVE_EVERY = 500
REPORT_EVERY = 50


def adapt(job: JobContext, parameters: AdaptParameters) -> dict[str, Any]:
    """Predictions and weights of the target's samples, and the classifier as files of a checkpoint.

    Raises:
        MethodError: the data sets do not fit together, or the source has no labels to learn.
        Cancelled: the user asked for it.
    """
    source, target = load_both(job, parameters.target, "target")
    check_labels(source)
    spec = input_spec(source, parameters.image_size)
    tensors = as_tensor(source, spec), _target_tensor(target, spec)
    labels = torch.from_numpy(source.require_labels())
    adaptation = Adaptation(
        tensors[0], labels, len(source.class_names), tensors[1], parameters, job.seed, pick_device(job.device)
    )
    run_adaptation(adaptation, job)
    job.progress(0.98, "report", f"{len(target)} samples of the target")
    shares = logits_of(adaptation.network, tensors[1]).double().softmax(dim=1).numpy()
    _write_classifier(adaptation, source, spec, job)
    return _result(source, target, shares, adaptation.weights, parameters, job)


def run_adaptation(adaptation: Adaptation, run: Run) -> None:
    """All steps, from the resume point where there is one; the same result as an undisturbed run.

    Raises:
        Cancelled: the user asked for it.
        MethodError: the training diverged.
    """
    steps = adaptation.parameters.steps
    parts = (adaptation.modules, adaptation.optimizers, {"random": adaptation.random})
    state, done = run.load_state(), 0
    if state is not None:
        arrays, meta = state
        unpack_training(arrays, meta, *parts)
        adaptation.set_weights(np.array(arrays["weights"]))
        done = int(meta["step"])
    for number in range(done + 1, steps + 1):
        adaptation.step(number)
        if number % REPORT_EVERY == 0 or number == steps:
            losses = {name: float(loss) for name, loss in adaptation.losses.items()}
            if not np.isfinite(sum(losses.values())):
                raise MethodError(f"training diverged at step {number}: lower learning_rate")
            run.metric("classification_loss", losses["classification"], number)
            if number > adaptation.parameters.source_steps:
                run.metric("critic_loss", losses["critic"], number)
            run.progress(0.98 * number / steps, "training", f"step {number} of {steps}")
        if number % SAVE_EVERY == 0 and number < steps:
            arrays, meta = pack_training(*parts)
            run.save_state(arrays | {"weights": adaptation.weights}, {**meta, "step": number})


def _target_tensor(target: Dataset, spec: ImageSpec | VectorSpec) -> torch.Tensor:
    try:
        return as_tensor(target, spec)
    except (MethodError, InputError) as error:
        raise MethodError(f"parameters.target: {str(error).removeprefix('dataset: ')}") from error


def _write_classifier(adaptation: Adaptation, source: Dataset, spec: ImageSpec | VectorSpec, job: JobContext) -> None:
    written = Checkpoint.write(
        job.scratch / "classifier",
        CheckpointConfig(
            method="robust-ot",
            input=spec,
            config=adaptation.parameters.model_dump(mode="json"),
            class_names=source.class_names,
            outputs={"architecture": adaptation.architecture, "shape": list(adaptation.source.shape[1:])},
            data_sha256=source.sha256,
            seed=job.seed,
        ),
        adaptation.network.state_dict(),
    )
    for name, media_type in ((WEIGHTS, "application/octet-stream"), (CONFIG, "application/json")):
        shutil.copyfile(written.folder / name, job.artifact(name, media_type))


def _result(
    source: Dataset,
    target: Dataset,
    shares: npt.NDArray[np.float64],
    weights: Float64,
    parameters: AdaptParameters,
    job: JobContext,
) -> dict[str, Any]:
    predicted, uniform = shares.argmax(axis=1), np.full(len(target), 1.0 / len(target))
    order = np.argsort(weights, kind="stable")
    outlier = np.zeros(len(target), dtype=bool)
    outlier[order[: round(parameters.outlier_fraction * len(target))]] = True
    outlier &= weights < 1.0
    names, ids = source.class_names, target.sample_ids or [str(index) for index in range(len(target))]
    table = pa.table(
        {
            "index": np.arange(len(target)),
            "id": pa.array([str(name) for name in ids], pa.string()),
            "label": pa.array([names[label] for label in predicted], pa.string()),
            "probability": shares.max(axis=1),
            "weight": weights,
            "outlier": outlier,
        }
    )
    pyarrow.parquet.write_table(table, job.artifact("predictions.parquet", "application/vnd.apache.parquet"))
    write_csv(table, job.artifact("predictions.csv", "text/csv"))
    weight_histogram(weights, None, job.artifact("weights.png", "image/png"))
    side = Side(np.empty((len(target), 0)), labels=predicted.astype(np.int64), class_names=names)
    classes = class_weights(side, weights, uniform)
    return {
        "object": "adapt",
        "samples": [len(source), len(target)],
        "steps": parameters.steps,
        "outliers": {"count": int(outlier.sum()), "share": float(outlier.mean())},
        "chi_square": chi_square(weights, uniform),
        "rho": parameters.rho,
        "accuracy": _accuracy(source, target, predicted),
        "class_weights": classes,
        "warnings": lost_classes(classes, "target"),
        "predictions": table.to_pylist(),
        "has_more": False,
    }


def _accuracy(source: Dataset, target: Dataset, predicted: npt.NDArray[np.int64]) -> dict[str, float | int] | None:
    """Share of right predictions among the target's samples whose label, where it has any, names a source class."""
    if target.labels is None:
        return None
    positions = {name: index for index, name in enumerate(source.class_names)}
    truth = np.array([positions.get(name, -1) for name in target.class_names], dtype=np.int64)[target.labels]
    known = truth >= 0
    if not known.any():
        return None
    return {"value": float((predicted == truth)[known].mean()), "samples": int(known.sum())}
