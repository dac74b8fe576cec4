"""Trains the generators of the proof, side by side: ``python -m models.robust_ot.gan_trainings FOLDER``.

For each arm and seed, ``FOLDER`` gets the generator and its training pictures' weights (``NAME.safetensors``), a sheet
of samples, and rows of what a judge says of it (``rows.json``) and of how the weights went (``trace.json``). They are
written again every few thousand steps, so that a training may be stopped at any time.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors.torch import save_file

from models.core import sources
from models.core.devices import device_name, pick_device
from models.core.inputs import UInt8
from models.core.parts import Row
from models.robust_ot.gan import RobustGAN
from models.robust_ot.gan_proof import CLEAN, GREY, SETTING, Judge, judged, polluted_digits, train_judge
from models.robust_ot.pollution import area_under_roc
from models.robust_ot.schema import Config
from models.robust_ot.sheets import contact_sheet
from models.robust_ot.train import tensors

SHARE = 0.1
STEPS, LOOK_EVERY, JUDGE_EVERY = 3500, 500, 5000
ROBUST = Config(width=16, batch=32, learning_rate=2e-4, outlier_fraction=SHARE)
ARMS = {
    "robust": ROBUST,
    "wide": ROBUST.model_copy(update={"outlier_fraction": 2 * SHARE}),
    "discrete": ROBUST.model_copy(update={"weighting": "discrete"}),
    "plain": ROBUST.model_copy(update={"outlier_fraction": 0.0}),
}
CELLS = {
    "robust": (SETTING, "robust"),
    "wide": (SETTING, "wide"),
    "discrete": (SETTING, "discrete"),
    "plain": (SETTING, "plain"),
    "clean-robust": (CLEAN, "robust"),
    "clean-plain": (CLEAN, "plain"),
}


@dataclass(frozen=True, eq=False)
class Training:
    """One generator in training: ``outlier`` ``(N,)`` marks its Fashion pictures."""

    cell: str
    seed: int
    game: RobustGAN
    outlier: npt.NDArray[np.bool_]
    stream: Callable[[], AbstractContextManager[Any]]

    @property
    def name(self) -> str:
        """Of its files."""
        return f"{self.cell}-{self.seed}"


def start(cell: str, seed: int, steps: int, device: torch.device) -> Training:
    """A fresh training on clean or polluted digits."""
    dataset, outlier = polluted_digits(seed)
    setting, arm = CELLS[cell]
    config = ARMS[arm].model_copy(update={"steps": steps})
    if setting == CLEAN:
        dataset, outlier = sources.load("digits", "train"), np.zeros(len(outlier), dtype=bool)
    stream: Callable[[], AbstractContextManager[Any]] = nullcontext
    if device.type == "cuda":
        # Each on a stream of its own: one small network leaves most of a GPU idle.
        stream = partial(torch.cuda.stream, torch.cuda.Stream(device))  # type: ignore[no-untyped-call]
    return Training(cell, seed, RobustGAN(dataset.images(GREY), config, seed, device), outlier, stream)


def train_together(trainings: Sequence[Training], steps: int, seconds: float, look: Callable[[int], None]) -> int:
    """One step of each in turn, ``steps`` times or for ``seconds``; the steps that were done.

    Args:
        look: called with the number of steps after every 500 and after the last.
    """
    began = time.monotonic()
    for number in range(1, steps + 1):
        for training in trainings:
            with training.stream():
                training.game.step(number)
        last = number == steps
        if number % LOOK_EVERY == 0 or last:
            for training in trainings:
                float(training.game.critic_loss)
            last = last or time.monotonic() - began > seconds
            look(number)
        if last:
            break
    return number


def trace_row(training: Training, steps: int) -> Row:
    """How well critic and weights rank the Fashion pictures now."""
    with training.stream():
        scores, weights = training.game.critic_scores(), training.game.final_weights()
    row: Row = {"training": training.name, "steps": steps, "critic_loss": float(training.game.critic_loss)}
    if training.outlier.any():
        row["critic_auroc"] = area_under_roc(scores, training.outlier)
        row["weight_auroc"] = area_under_roc(-weights, training.outlier)
        row["outlier_weight"] = float(weights[training.outlier].mean())
    return row


def measured_row(training: Training, judge: Judge, real: UInt8, steps: int) -> Row:
    """What the judge says of the samples, and what the weights found."""
    game = training.game
    setting, arm = CELLS[training.cell]
    row: Row = {"cell": training.cell, "setting": setting, "arm": arm, "seed": training.seed, "steps": steps}
    with training.stream():
        row |= judged(judge, game.generator, game.config, training.seed, real, game.device)
        weights = game.final_weights()
    if game.config.outlier_fraction > 0.0:
        row["chi-square of training weights"] = 0.5 * float(np.mean((weights - 1) ** 2))
        if training.outlier.any():
            row["AUROC of training weights"] = area_under_roc(-weights, training.outlier)
    return row


def main() -> None:
    """Train and measure every arm."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where to write")
    parser.add_argument("--cells", choices=list(CELLS), nargs="+", default=["robust", "plain"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=STEPS, help="critic steps")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop training then")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    folder: Path = options.folder
    folder.mkdir(parents=True, exist_ok=True)
    device = pick_device(options.device)
    judge, _ = train_judge(device)
    real = sources.load("digits", "test").images(GREY)
    trainings = [start(cell, seed, options.steps, device) for seed in options.seeds for cell in options.cells]
    began = time.monotonic()
    trace: list[Row] = []

    def keep(steps: int) -> None:
        rows = [measured_row(training, judge, real, steps) | {"device": device_name(device)} for training in trainings]
        (folder / "rows.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
        for training in trainings:
            with training.stream():
                kept = {name: value.cpu().contiguous() for name, value in tensors(training.game).items()}
                contact_sheet(training.game.samples(64, training.seed), folder / f"{training.name}.png")
            save_file(kept, folder / f"{training.name}.safetensors")

    def look(steps: int) -> None:
        rate = steps / (time.monotonic() - began)
        print(f"{steps} steps, {rate:.0f} a second of {len(trainings)} trainings", flush=True)
        trace.extend(trace_row(training, steps) for training in trainings)
        (folder / "trace.json").write_text(json.dumps(trace) + "\n", encoding="utf-8")
        if steps % JUDGE_EVERY == 0:
            keep(steps)

    keep(train_together(trainings, options.steps, options.seconds, look))


if __name__ == "__main__":
    main()
