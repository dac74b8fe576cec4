"""Makes what ``weights/`` holds: the whole proof, cell by cell, and the shipped classifier.

``python -m models.aum.ship proof ROWS.jsonl --cells 0:6`` measures cells and appends them to the file;
``python -m models.aum.ship checkpoint ROWS.jsonl`` trains the classifier and writes ``weights/``.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from models.aum.evaluate import SHIPPED_SETTING, WEIGHTS, classification_figures, data_hashes, summarise
from models.aum.features import extract_features
from models.aum.fit import Schedule
from models.aum.folds import FoldPlan, run_folds
from models.aum.proof import CELLS, Row, measure_cell
from models.aum.ranking import rank_samples
from models.aum.schema import Config
from models.aum.stages import Stages
from models.aum.thresholds import threshold_count
from models.aum.train import train_classifier
from models.core.checkpoint import Checkpoint
from models.core.dataset import Dataset
from models.core.figures import Figure
from models.core.noise import corrupt_labels
from models.core.run import LocalRun
from models.core.sources import load

RATE, SEED = 0.2, 0


def measure(path: Path, first: int, last: int) -> None:
    """Measure the cells ``first..last-1`` that the file does not hold yet."""
    done = {_key(row) for row in read_rows(path)} if path.exists() else set()
    for cell in CELLS[first:last]:
        if (cell.data, cell.kind, cell.rate, cell.seed) in done:
            continue
        with tempfile.TemporaryDirectory() as folder:
            row = measure_cell(cell, LocalRun(Path(folder)), lambda fraction, stage: None)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(f"{cell.setting}, seed {cell.seed}: AUROC {row['auroc_aum']:.4f}", flush=True)


def read_rows(path: Path) -> list[Row]:
    """The measured cells in the order of the proof."""
    order: dict[tuple[object, ...], int] = {(c.data, c.kind, c.rate, c.seed): i for i, c in enumerate(CELLS)}
    rows: list[Row] = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return sorted(rows, key=lambda row: order[_key(row)])


def _key(row: Row) -> tuple[object, ...]:
    return tuple(row[name] for name in ("data", "noise", "rate", "seed"))


def make_checkpoint(rows: list[Row]) -> None:
    """Train on noisy Fashion-MNIST without the suspects, and on all of it and without all wrong labels to compare."""
    clean, test = load("fashion-mnist", "train"), load("fashion-mnist", "test")
    truth = clean.require_labels()
    labels = corrupt_labels(truth, len(clean.class_names), kind="uniform", rate=RATE, seed=SEED)
    noisy = Dataset(clean.kind, clean.inputs, labels, clean.class_names, name=f"fashion-mnist, uniform {RATE:.0%}")
    dropped = {
        "method": _suspects(noisy),
        "all samples": np.empty(0, dtype=np.int64),
        "oracle": np.flatnonzero(labels != truth),
    }
    accuracies = []
    for subject, indices in dropped.items():
        with tempfile.TemporaryDirectory() as folder:
            run = LocalRun(Path(folder), seed=SEED)
            checkpoint = train_classifier(noisy, Config(drop_indices=indices.tolist()), run)
            figure = classification_figures(checkpoint, run, test)[0]
            accuracies.append(figure.model_copy(update={"subject": subject, "setting": SHIPPED_SETTING}))
            if subject == "method":
                shutil.copytree(checkpoint.folder, WEIGHTS, dirs_exist_ok=True)
        print(subject, len(indices), figure.value, flush=True)
    _write_figures(rows, accuracies)


def _write_figures(rows: list[Row], accuracies: list[Figure]) -> None:
    checkpoint = Checkpoint(WEIGHTS)
    figures = summarise(rows, remeasured=[])
    figures.figures = [accuracies[0].model_copy(update={"headline": True}), *accuracies[1:], *figures.figures]
    figures.data_sha256 = data_hashes()
    figures.command = "python -m models.aum.ship"
    checkpoint.write_figures(figures)


def _suspects(noisy: Dataset) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    labels, classes = noisy.require_labels(), len(noisy.class_names)
    features = extract_features(noisy, "small-cnn", image_size=64, seed=SEED)
    plan = FoldPlan(2, threshold_count(len(labels), classes), Schedule(8, 64, 0.1, 1e-4))
    with tempfile.TemporaryDirectory() as folder:
        stages = Stages(LocalRun(Path(folder), seed=SEED), dict.fromkeys(plan.names, 1.0))
        runs = run_folds(stages, features, labels, classes, plan, SEED)
    return np.flatnonzero(rank_samples(runs, labels, 99.0, "all").suspect)


def main() -> None:
    """Run one of the two steps."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=["proof", "checkpoint"])
    parser.add_argument("rows", type=Path)
    parser.add_argument("--cells", default=f"0:{len(CELLS)}")
    arguments = parser.parse_args()
    first, _, last = arguments.cells.partition(":")
    steps: dict[str, Callable[[], None]] = {
        "proof": lambda: measure(arguments.rows, int(first), int(last)),
        "checkpoint": lambda: make_checkpoint(read_rows(arguments.rows)),
    }
    steps[arguments.step]()


if __name__ == "__main__":
    main()
