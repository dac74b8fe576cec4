"""Training of the robust Wasserstein GAN on pictures that may be dirty, resumable."""

from __future__ import annotations

import csv
from typing import Any

import numpy as np
import torch

from models.core.checkpoint import Checkpoint, CheckpointConfig
from models.core.dataset import Dataset
from models.core.devices import pick_device
from models.core.figures import Figure, Figures
from models.core.inputs import Float64, ImageSpec, SidesSpec
from models.core.method import MethodError
from models.core.run import Run
from models.core.training import pack_training, unpack_training
from models.core.transport.clouds import picture_spec
from models.robust_ot.gan import RobustGAN
from models.robust_ot.schema import Config
from models.robust_ot.sheets import contact_sheet

SAVE_EVERY = 500
REPORT_EVERY = 50
_SHOWN = 64


def train(dataset: Dataset, config: Config, run: Run) -> Checkpoint:
    """Train, and write a version whose checkpoint holds the generator and a weight for each training picture.

    Artifacts: ``weights.csv`` (lowest first), ``samples.png``, ``lowest-weights.png``.

    Raises:
        MethodError: fewer pictures than a batch.
    """
    if dataset.kind != "images":
        raise MethodError(f"the data set holds {dataset.kind}; the generator is trained on images")
    if len(dataset) < config.batch:
        raise MethodError(f"{len(dataset)} pictures are fewer than a batch of {config.batch}")
    spec = ImageSpec(height=config.size, width=config.size, channels=picture_spec(dataset).channels)
    gan = RobustGAN(dataset.images(spec), config, run.seed, pick_device(run.device))
    done = _resume(gan, run)
    for number in range(done + 1, config.steps + 1):
        gan.step(number)
        if number % REPORT_EVERY == 0 or number == config.steps:
            run.metric("critic_loss", float(gan.critic_loss), number)
            run.progress(0.98 * number / config.steps, "training", f"step {number} of {config.steps}")
        if number % SAVE_EVERY == 0 and number < config.steps:
            _save(gan, run, number)
    weights, facts = gan.final_weights(), gan.facts()
    _artifacts(gan, dataset, weights, run)
    return Checkpoint.write(
        run.scratch / "checkpoint",
        CheckpointConfig(
            method="robust-ot",
            input=SidesSpec(),
            config=config.model_dump(mode="json"),
            outputs={"generator": {"channels": spec.channels}, "weights": facts},
            data_sha256=dataset.sha256,
            seed=run.seed,
        ),
        tensors(gan),
        _figures(dataset, facts),
    )


def tensors(gan: RobustGAN) -> dict[str, torch.Tensor]:
    """What a version keeps: the generator in half precision, and the training pictures' weights."""
    kept = {f"generator.{name}": value for name, value in gan.generator.state_dict().items()}
    kept = {name: value.half() if value.is_floating_point() else value for name, value in kept.items()}
    return {**kept, "sample_weights": torch.from_numpy(gan.final_weights()).half()}


def _figures(dataset: Dataset, facts: dict[str, Any]) -> Figures:
    figures = [Figure(name=name.replace("_", " "), value=value, setting=dataset.name) for name, value in facts.items()]
    return Figures(figures=figures, data_sha256={dataset.name or "training set": dataset.sha256}, command="train")


def _resume(gan: RobustGAN, run: Run) -> int:
    state = run.load_state()
    if state is None:
        return 0
    arrays, meta = state
    unpack_training(arrays, meta, gan.modules, gan.optimizers, {"random": gan.random})
    gan.set_weights(arrays["sample_weights"])
    gan.scores = arrays["scores"]
    return int(meta["step"])


def _save(gan: RobustGAN, run: Run, step: int) -> None:
    arrays, meta = pack_training(gan.modules, gan.optimizers, {"random": gan.random})
    arrays |= {"sample_weights": gan.sample_weights, "scores": gan.scores}
    run.save_state(arrays, {**meta, "step": step})


def _artifacts(gan: RobustGAN, dataset: Dataset, weights: Float64, run: Run) -> None:
    order = np.argsort(weights, kind="stable")
    with run.artifact("weights.csv", "text/csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["index", "id", "weight"])
        ids = dataset.sample_ids
        writer.writerows([int(i), ids[i] if ids else int(i), f"{weights[i]:.6g}"] for i in order)
    contact_sheet(gan.samples(_SHOWN, run.seed), run.artifact("samples.png", "image/png"))
    contact_sheet(gan.pictures[order[:_SHOWN]], run.artifact("lowest-weights.png", "image/png"))
