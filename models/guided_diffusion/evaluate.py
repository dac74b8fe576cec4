"""Measurements of a version: against the user's pictures, or the whole proof on the data it was trained on."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from models.core import sources
from models.core.checkpoint import Checkpoint
from models.core.dataset import Dataset
from models.core.devices import pick_device
from models.core.figures import Figure, Figures
from models.core.method import MethodError
from models.core.run import Run
from models.guided_diffusion.baselines import clean_guide, simple_twin
from models.guided_diffusion.cells import Bench, Measured, device_name, measure_cells
from models.guided_diffusion.fast import FastDenoiser
from models.guided_diffusion.findings import bound_claims, by_subject, claims, floor_figures, summary, trade_off
from models.guided_diffusion.judge import to_pictures
from models.guided_diffusion.measuring import (
    Quality,
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
from models.guided_diffusion.plan import PLANS, Cell, Guide, Plan, cells_of
from models.guided_diffusion.schema import Config, Params
from models.guided_diffusion.versions import Networks

ON_USER_DATA = 500
NEAREST = 10
FID = {"fashion-mnist": "fid_fmnist64", "digits": "fid_digits64"}


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
    """The proof: what guidance costs and gains, beside sampling without it; steps, variances, other guides.

    On a CPU by the plan ``small``, on an accelerator by ``full`` (:mod:`models.guided_diffusion.plan`). Each measured
    cell is kept as a resume point. Artifacts: ``trade-off.png``, ``classes.png`` (all classes by scale) and
    ``nearest.png`` (samples over their nearest training pictures).

    Raises:
        MethodError: the version's classes are those of no data set that is known here; give one.
        DataUnavailableError: the data set cannot be had.
        Cancelled: the user asked for it.
    """
    plan = PLANS["small" if pick_device(run.device).type == "cpu" else "full"]
    proof = Proof.open(checkpoint, run, plan)
    return proof.figures(measure_cells(proof.bench(), proof.cells, run))


@dataclass(frozen=True, eq=False)
class Proof:
    """A version, how and on what it was trained, and how much of the proof is measured."""

    config: Config
    run: Run
    plan: Plan
    method: GuidedDiffusion
    train: Dataset
    test: Dataset
    started: float

    @classmethod
    def open(cls, checkpoint: Checkpoint, run: Run, plan: Plan) -> Proof:
        """Load what the proof needs.

        Raises:
            MethodError, DataUnavailableError: as :func:`prove`.
        """
        started = time.monotonic()
        method = GuidedDiffusion.load(checkpoint, pick_device(run.device))
        train, test = (sources.load(_data_of(method), split) for split in ("train", "test"))
        return cls(Config.model_validate(checkpoint.config.config), run, plan, method, train, test, started)

    @property
    def cells(self) -> list[Cell]:
        """Those of the plan, on this data."""
        return cells_of(self.plan, len(self.test))

    def bench(self, guides: Collection[Guide] | None = None) -> Bench:
        """What measures cells with ``guides`` (the plan's by default); trains the clean guide if it is needed."""
        wanted = self.plan.guides if guides is None else guides
        clean = clean_guide(self.config, self.train, self.run) if "clean" in wanted else None
        return Bench(self.method.networks, self.test, self.plan, clean)

    def figures(self, measured: Sequence[Measured]) -> Figures:
        """Everything else, and what ``measured`` says."""
        name, samples = self.test.name, measured[0].cell.samples
        eta = self.method.networks.eta
        sampling = f"DDIM in {Params().steps} steps{f' with eta {eta:g}' if eta else ''}"
        setting = f"{name}, {samples} samples, {sampling}, {measured[0].device}"
        self._draw(measured)
        floor = real_against_real(self.method.networks, self.train, self.test, samples)
        bounds = self._bounds()
        accuracies = self._noisy()
        bound_setting = (
            f"{name}, {self._likely} pictures, bound in {self.plan.bound_steps} steps, "
            f"{device_name(self.method.networks.device)}"
        )
        return Figures(
            figures=[
                *by_subject(measured, FID[name.partition("/")[0]], setting),
                *floor_figures(floor, FID[name.partition("/")[0]], setting),
                *(
                    Figure(name="bits per dimension", value=float(bits.mean()), subject=subject, setting=bound_setting)
                    for subject, bits in bounds.items()
                ),
            ],
            claims=[*claims(measured, floor), *bound_claims(bounds)],
            tables={
                **summary(measured),
                "cells": [cell.row() for cell in measured],
                "guiding classifier by noise": [{"step": t, "accuracy": value} for t, value in accuracies.items()],
            },
            data_sha256={part.name: part.sha256 for part in (self.train, self.test)},
            command="deepnight evaluate guided-diffusion",
            seconds=time.monotonic() - self.started,
        )

    @property
    def _likely(self) -> int:
        return min(self.plan.bound_pictures, len(self.test))

    def _bounds(self) -> dict[str, Tensor]:
        """Bits a dimension of each of the same pictures, by network and variance."""
        versions = {"method": self.method.networks}
        if self.plan.twin:
            versions["L_simple"] = simple_twin(self.config, self.train, self.run)
        part = self.test.select(np.arange(self._likely))
        pictures, labels = part.images(image_spec(self.method.networks)), part.require_labels()
        found: dict[str, Tensor] = {}
        if self.plan.precision != "float32":  # compiled too, but always in float32
            versions = {name: replace(v, denoiser=FastDenoiser(v, "float32")) for name, v in versions.items()}
        for name, networks in versions.items():

            def report(share: float, name: str = name) -> None:
                self.run.progress(0.96, "likelihood", f"{name}, {share:.0%}")

            batch = min(self.plan.batch, self._likely)
            bounds = bits_per_dimension(
                networks, pictures, labels, self.plan.bound_steps, self.run.seed, report, batch=batch
            )
            for kind, bits in bounds.items():
                found[name if kind == "learned" else f"{name}, {kind} variance"] = bits
        return found

    def _noisy(self) -> dict[int, float]:
        networks = self.method.networks
        total = len(networks.schedule)
        part = self.test.select(np.arange(min(max(500, self.plan.samples), len(self.test))))
        levels = [int(share * (total - 1)) for share in (0, 0.25, 0.5, 0.75, 0.9)]
        return noisy_accuracy(networks, part.images(image_spec(networks)), part.require_labels(), levels)

    def _draw(self, measured: Sequence[Measured]) -> None:
        run, classes = self.run, len(self.method.networks.class_names)
        draw_trade_off(trade_off(measured), run.artifact("trade-off.png", "image/png"))
        shown = []
        for scale in (0.0, 2.0, 8.0):
            run.progress(0.93, "draw sheets", f"scale {scale:g}")
            draws = spread_draws(3 * classes, classes, 0)
            shown.append(to_pictures(draw_pictures(self.method.samples, draws, Params(guidance_scale=scale))))
        sheet(np.concatenate(shown), classes).save(run.artifact("classes.png", "image/png"))
        real = self.train.select(np.arange(min(10_000, len(self.train)))).images(image_spec(self.method.networks))
        samples = shown[1][:NEAREST]
        distances = ((real[None].astype(np.float32) - samples[:, None].astype(np.float32)) ** 2).sum(axis=(2, 3, 4))
        sheet(np.concatenate([samples, real[distances.argmin(axis=1)]]), NEAREST).save(
            run.artifact("nearest.png", "image/png")
        )


def _data_of(method: GuidedDiffusion) -> str:
    networks = method.networks
    for name in FID:
        data = sources.load(name, "test")
        if data.class_names == networks.class_names and np.shape(data.inputs[0]) == (*networks.shape[1:], 1):
            return name
    raise MethodError("dataset: this version was trained on data that is not known here; name a data set to measure on")


def real_against_real(networks: Networks, train: Dataset, test: Dataset, count: int) -> Quality:
    """``count`` test pictures beside as many others: of the test set where it has them, otherwise of the training."""
    spec = image_spec(networks)
    first, rest = np.split(np.random.default_rng(1).permutation(len(test)), [count])
    others = test.select(rest[:count]) if len(rest) >= count else train.select(np.arange(count))
    ours, theirs = (judged(networks, part.images(spec)) for part in (test.select(first), others))
    return quality(ours, theirs, others.require_labels(), networks.device)
