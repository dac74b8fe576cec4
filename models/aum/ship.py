"""Makes what ``weights/`` holds: the proof at any size, and the shipped classifier.

``python -m models.aum.ship proof ROWS.jsonl --data fashion-mnist --samples 20000`` measures the noises of one size and
appends them to the file, ``... figures ROWS.jsonl`` stores what the file holds, ``... checkpoint`` trains the
classifier.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from models.aum.cells import NOISES, Cell, cells_of
from models.aum.evaluate import SHIPPED_SETTING, WEIGHTS, classification_figures, data_hashes
from models.aum.features import extract_features
from models.aum.findings import summarise
from models.aum.folds import FoldPlan, run_folds
from models.aum.proof import measure_cells
from models.aum.ranking import rank_samples
from models.aum.schema import Config
from models.aum.stages import Stages
from models.aum.thresholds import threshold_count
from models.aum.train import train_classifier
from models.aum.trainer import COUNTING
from models.core.checkpoint import Checkpoint
from models.core.dataset import Dataset
from models.core.devices import pick_device
from models.core.figures import Figure
from models.core.noise import corrupt_labels
from models.core.parts import Row
from models.core.run import LocalRun
from models.core.sources import load

DATA = ("fashion-mnist", "digits")
RATE, SEED = 0.2, 0


def measure(path: Path, cells: Sequence[Cell], device: str, *, retrain: bool) -> None:
    """Measure what the file does not hold yet: one cell at a time on a CPU, all together elsewhere."""
    done = {_key(row) for row in read_rows(path)} if path.exists() else set()
    cells = [cell for cell in cells if (cell.data, cell.samples, cell.noise, cell.rate, cell.seed) not in done]
    size = 1 if pick_device(device).type == "cpu" else max(1, len(cells))
    for start in range(0, len(cells), size):
        _measure(path, cells[start : start + size], device, retrain)


def _measure(path: Path, cells: Sequence[Cell], device: str, retrain: bool) -> None:
    begun = time.monotonic()

    def report(fraction: float, stage: str, message: str) -> None:
        print(f"{time.monotonic() - begun:6.1f} s {fraction:6.1%} {stage}", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        rows = measure_cells(cells, LocalRun(Path(folder), device=device, report=report), retrain=retrain)
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def read_rows(path: Path) -> list[Row]:
    """The measured cells, by data, size, noise and seed."""
    rows: list[Row] = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    noises = {noise: number for number, noise in enumerate(NOISES)}

    def place(row: Row) -> tuple[int, ...]:
        noise = noises[row["noise"], row["rate"]]  # type: ignore[index]
        return DATA.index(str(row["data"])), int(row["samples"] or 0), noise, int(row["seed"] or 0)

    return sorted(rows, key=place)


def _key(row: Row) -> tuple[object, ...]:
    return tuple(row[name] for name in ("data", "samples", "noise", "rate", "seed"))


def write_figures(rows: list[Row]) -> None:
    """Store the proof beside the weights; the shipped classifier's own figures stay."""
    checkpoint = Checkpoint(WEIGHTS)
    stored = checkpoint.figures
    figures = summarise(rows)
    if stored is not None:
        figures.figures = [*(f for f in stored.figures if f.setting == SHIPPED_SETTING), *figures.figures]
    figures.data_sha256 = data_hashes()
    figures.command = "python -m models.aum.ship"
    checkpoint.write_figures(figures)


def make_checkpoint(device: str) -> None:
    """Train on noisy Fashion-MNIST without the suspects, and on all of it and without all wrong labels to compare."""
    clean, test = load("fashion-mnist", "train"), load("fashion-mnist", "test")
    truth = clean.require_labels()
    labels = corrupt_labels(truth, len(clean.class_names), kind="uniform", rate=RATE, seed=SEED)
    noisy = Dataset(clean.kind, clean.inputs, labels, clean.class_names, name=f"fashion-mnist, uniform {RATE:.0%}")
    dropped = {
        "method": _suspects(noisy, device),
        "all samples": np.empty(0, dtype=np.int64),
        "oracle": np.flatnonzero(labels != truth),
    }
    proof = Checkpoint(WEIGHTS).figures
    accuracies: list[Figure] = []
    for subject, indices in dropped.items():
        with tempfile.TemporaryDirectory() as folder:
            run = LocalRun(Path(folder), seed=SEED, device=device)
            checkpoint = train_classifier(noisy, Config(drop_indices=indices.tolist()), run)
            figure = classification_figures(checkpoint, run, test)[0]
            headline = subject == "method"
            accuracies.append(
                figure.model_copy(update={"subject": subject, "setting": SHIPPED_SETTING, "headline": headline})
            )
            if headline:
                shutil.copytree(checkpoint.folder, WEIGHTS, dirs_exist_ok=True)
        print(subject, len(indices), figure.value, flush=True)
    if proof is not None:
        proof.figures = [*accuracies, *(f for f in proof.figures if f.setting != SHIPPED_SETTING)]
        Checkpoint(WEIGHTS).write_figures(proof)


def _suspects(noisy: Dataset, device: str) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    labels, classes = noisy.require_labels(), len(noisy.class_names)
    features = extract_features(noisy, "small-cnn", image_size=64, seed=SEED)
    plan = FoldPlan(2, threshold_count(len(labels), classes), COUNTING)
    with tempfile.TemporaryDirectory() as folder:
        stages = Stages(LocalRun(Path(folder), seed=SEED, device=device), dict.fromkeys(plan.names, 1.0))
        runs = run_folds(stages, features, labels, classes, plan, SEED)
    return np.flatnonzero(rank_samples(runs, labels, 99.0, "all").suspect)


def main() -> None:
    """Run one of the steps."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=["proof", "figures", "checkpoint"])
    parser.add_argument("rows", type=Path, nargs="?", default=Path("rows.jsonl"))
    parser.add_argument("--data", default="fashion-mnist", choices=DATA)
    parser.add_argument("--samples", type=int, default=8000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--noises", nargs="+", help="only these, such as `none` or `uniform-0.2`; all unless given")
    parser.add_argument("--no-retrain", action="store_true", help="measure rankings and noise rates only")
    parser.add_argument("--device", default="auto")
    given = parser.parse_args()
    cells = [
        cell
        for cell in cells_of(given.data, given.samples, given.seeds)
        if given.noises is None or cell.name in given.noises
    ]
    steps: dict[str, Callable[[], None]] = {
        "proof": lambda: measure(given.rows, cells, given.device, retrain=not given.no_retrain),
        "figures": lambda: write_figures(read_rows(given.rows)),
        "checkpoint": lambda: make_checkpoint(given.device),
    }
    steps[given.step]()


if __name__ == "__main__":
    main()
