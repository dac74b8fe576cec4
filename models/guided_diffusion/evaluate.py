"""Measurements of a version: against the user's pictures, or the whole proof on the data it was trained on."""

from __future__ import annotations

import time

import numpy as np

from models.core import sources
from models.core.checkpoint import Checkpoint
from models.core.dataset import Dataset
from models.core.devices import pick_device
from models.core.figures import Figure, Figures
from models.core.method import MethodError
from models.core.run import Run
from models.guided_diffusion.cells import CELLS, Cell, Measured, measure_cells, samples_of
from models.guided_diffusion.fidelity import frechet_distance
from models.guided_diffusion.findings import by_subject, claims, trade_off
from models.guided_diffusion.judge import to_pictures
from models.guided_diffusion.measuring import (
    bits_per_dimension,
    draw_pictures,
    image_spec,
    judged,
    noisy_accuracy,
    quality,
    spread_draws,
)
from models.guided_diffusion.method import GuidedDiffusion
from models.guided_diffusion.pictures import draw_trade_off, sheet
from models.guided_diffusion.schema import Params

ON_USER_DATA = 500
LIKELIHOOD_PICTURES = 50
LIKELIHOOD_STEPS = 50
NEAREST = 10
DATA = {"fashion-mnist": "fid_fmnist64", "digits": "fid_digits64"}


def evaluate_on(checkpoint: Checkpoint, run: Run, dataset: Dataset) -> Figures:
    """Fidelity and diversity of 500 drawn pictures against as many of ``dataset``.

    Raises:
        MethodError: not pictures, or fewer than 20.
        Cancelled: the user asked for it.
    """
    started = time.monotonic()
    if dataset.kind != "images" or len(dataset) < 20:
        raise MethodError(f"dataset: at least 20 images are needed, this one holds {len(dataset)} {dataset.kind}")
    method = GuidedDiffusion.load(checkpoint, pick_device(run.device))
    networks = method.networks
    rows = np.random.default_rng(run.seed).permutation(len(dataset))[:ON_USER_DATA]
    real = judged(networks, dataset.select(rows).images(image_spec(networks)))
    draws = spread_draws(len(rows), len(networks.class_names), run.seed)
    scale = 0.0 if networks.classifier is None else Params().guidance_scale
    params = Params(guidance_scale=scale, steps=min(25, len(networks.schedule)))
    drawn = draw_pictures(method.samples, draws, params, lambda share: run.progress(0.95 * share, "draw"))
    found = quality(real, judged(networks, to_pictures(drawn)), np.array([draw.class_index for draw in draws]))
    setting = f"{dataset.name or 'data set'}, {len(rows)} pictures a side, guidance scale {scale:g}"
    run.progress(1.0, "done")
    return Figures(
        figures=[Figure(name=name, value=value, setting=setting) for name, value in vars(found).items()],
        data_sha256={dataset.name or "dataset": dataset.sha256},
        command="deepnight evaluate guided-diffusion --dataset",
        seconds=time.monotonic() - started,
    )


def prove(checkpoint: Checkpoint, run: Run) -> Figures:
    """The proof: what guidance costs and gains, beside sampling without it; steps, variances, noise-blind guidance.

    Each measured cell is kept as a resume point. Artifacts: ``trade-off.png``, ``classes.png`` (all classes by scale)
    and ``nearest.png`` (samples over their nearest training pictures).

    Raises:
        MethodError: the version's classes are those of no data set that is known here; give one.
        DataUnavailableError: the data set cannot be had.
        Cancelled: the user asked for it.
    """
    started = time.monotonic()
    method = GuidedDiffusion.load(checkpoint, pick_device(run.device))
    name = _data_of(method)
    train, test = (sources.load(name, split) for split in ("train", "test"))
    measured = measure_cells(method, test, CELLS, run)
    floor = _floor(method, test)
    _draw(method, train, measured, run)
    setting = f"{test.name}, {measured[0].cell.samples} samples, DDIM in 25 steps"
    accuracies = _noisy(method, test)
    bits = _bits(method, test, run)
    return Figures(
        figures=[
            *by_subject(measured, DATA[name], setting),
            Figure(name=DATA[name], value=floor, subject="real against real", setting=setting),
            Figure(
                name="bits per dimension",
                value=bits,
                setting=f"{test.name}, {LIKELIHOOD_PICTURES} pictures, bound in {LIKELIHOOD_STEPS} steps",
            ),
        ],
        claims=claims(measured, floor),
        tables={
            "cells": [cell.row() for cell in measured],
            "guiding classifier by noise": [{"step": step, "accuracy": value} for step, value in accuracies.items()],
        },
        data_sha256={part.name: part.sha256 for part in (train, test)},
        command="deepnight evaluate guided-diffusion",
        seconds=time.monotonic() - started,
    )


def _data_of(method: GuidedDiffusion) -> str:
    for name in DATA:
        data = sources.load(name, "test")
        if data.class_names == method.networks.class_names and np.shape(data.inputs[0]) == (
            *method.networks.shape[1:],
            1,
        ):
            return name
    raise MethodError("dataset: this version was trained on data that is not known here; name a data set to measure on")


def _floor(method: GuidedDiffusion, test: Dataset) -> float:
    """Distance of as many real pictures from as many others."""
    count = min(CELLS[0].samples, len(test) // 2)
    rows = np.random.default_rng(1).permutation(len(test))
    spec = image_spec(method.networks)
    halves = [
        judged(method.networks, test.select(part).images(spec)) for part in (rows[:count], rows[count : 2 * count])
    ]
    return frechet_distance(halves[0].features, halves[1].features)


def _noisy(method: GuidedDiffusion, test: Dataset) -> dict[int, float]:
    total = len(method.networks.schedule)
    part = test.select(np.arange(min(500, len(test))))
    levels = [int(share * (total - 1)) for share in (0, 0.25, 0.5, 0.75, 0.9)]
    return noisy_accuracy(method.networks, part.images(image_spec(method.networks)), part.require_labels(), levels)


def _bits(method: GuidedDiffusion, test: Dataset, run: Run) -> float:
    part = test.select(np.arange(min(LIKELIHOOD_PICTURES, len(test))))
    pictures = part.images(image_spec(method.networks))
    found = bits_per_dimension(
        method.networks,
        pictures,
        part.require_labels(),
        LIKELIHOOD_STEPS,
        run.seed,
        lambda share: run.progress(0.95 + 0.04 * share, "likelihood"),
    )
    return float(found.mean())


def _draw(method: GuidedDiffusion, train: Dataset, measured: list[Measured], run: Run) -> None:
    draw_trade_off(trade_off(measured), run.artifact("trade-off.png", "image/png"))
    classes = len(method.networks.class_names)
    shown = []
    for scale in (0.0, 2.0, 8.0):
        cell = Cell("sheet", Params(guidance_scale=scale, unconditional=False), samples=3 * classes)
        run.progress(0.93, "draw sheets", f"scale {scale:g}")
        shown.append(to_pictures(samples_of(method, cell, lambda share: None)))
    sheet(np.concatenate(shown), classes).save(run.artifact("classes.png", "image/png"))
    spec = image_spec(method.networks)
    real = train.select(np.arange(min(10_000, len(train)))).images(spec)
    samples = shown[1][:NEAREST]
    distances = ((real[None].astype(np.float32) - samples[:, None].astype(np.float32)) ** 2).sum(axis=(2, 3, 4))
    sheet(np.concatenate([samples, real[distances.argmin(axis=1)]]), NEAREST).save(
        run.artifact("nearest.png", "image/png")
    )
