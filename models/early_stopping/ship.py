"""Makes what ``weights/`` holds: the whole proof, cell by cell, and the shipped classifier.

``python -m models.early_stopping.ship proof FOLDER --cells 0:5`` measures cells into ``FOLDER/proof.jsonl``;
``python -m models.early_stopping.ship theory FOLDER`` measures the theorems on clustered data;
``python -m models.early_stopping.ship checkpoint FOLDER`` trains the classifier and writes ``weights/``.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from models.core.checkpoint import CONFIG, WEIGHTS, Checkpoint
from models.core.classification import train_classifier, user_figures
from models.core.dataset import Dataset
from models.core.figures import Figure
from models.core.noise import corrupt_labels
from models.core.parts import Row
from models.core.run import LocalRun
from models.core.sources import load
from models.core.trainer_options import EarlyStopping
from models.early_stopping.evaluate import SHIPPED, SHIPPED_SETTING, summarise
from models.early_stopping.proof import CELLS, measure_cell, measure_law, measure_theory
from models.early_stopping.schema import Config

SEEDS, ROWS, RATE = (0,), 10_000, 0.4
STOPPED = Config(early_stopping=EarlyStopping(noise_rate=RATE), test_share=0)


def _append(path: Path, rows: Sequence[Row]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def read_rows(path: Path) -> list[Row]:
    """The rows of a file; none where there is no file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def measure(folder: Path, first: int, last: int) -> None:
    """Measure the cells ``first..last-1`` that the file does not hold yet."""
    path = folder / "proof.jsonl"
    done = {(row["noise"], row["seed"]) for row in read_rows(path)}
    for cell in CELLS[first:last]:
        if (cell.noise, cell.seed) in done:
            continue
        with tempfile.TemporaryDirectory() as scratch:
            row, curve = measure_cell(cell, LocalRun(Path(scratch)))
        _append(path, [row])
        if cell.seed == 0:
            _append(folder / "curves.jsonl", [{"noise": cell.noise, **point} for point in curve])
        print(cell, row["stopped"], row["last"], flush=True)


def theory(folder: Path) -> None:
    """Measure both theorems with every seed."""
    for seed in SEEDS:
        _append(folder / "theory.jsonl", measure_theory(seed))
        _append(folder / "law.jsonl", measure_law(seed))


def noisy_data() -> Dataset:
    """The pictures of the shipped classifier, 40% of whose labels are wrong."""
    clean = load("fashion-mnist", "train")
    chosen = clean.select(np.random.default_rng(0).permutation(len(clean))[:ROWS])
    labels = corrupt_labels(chosen.require_labels(), 10, kind="uniform", rate=RATE, seed=0)
    return replace(chosen, labels=labels, name=f"fashion-mnist, {ROWS:,} pictures, {RATE:.0%} wrong labels")


def checkpoint(folder: Path) -> None:
    """Train, write ``weights/`` and its figures."""
    run = LocalRun(folder / "checkpoint")
    trained = train_classifier("early-stopping", noisy_data(), STOPPED, run)
    value = user_figures(trained, load("fashion-mnist", "test"), "cpu")[0].value
    _copy(trained)
    tables = {name: read_rows(folder / f"{name}.jsonl") for name in ("proof", "theory", "law", "curves")}
    found = summarise(tables, [Figure(name="accuracy", value=value, setting=SHIPPED_SETTING, headline=True)])
    found.command = "python -m models.early_stopping.ship"
    Checkpoint(SHIPPED).write_figures(found)


def _copy(trained: Checkpoint) -> None:
    SHIPPED.mkdir(parents=True, exist_ok=True)
    (SHIPPED / WEIGHTS).write_bytes((trained.folder / WEIGHTS).read_bytes())
    named = trained.config.model_copy(
        update={"command": "python -m models.early_stopping.ship checkpoint runs/early-stopping"}
    )
    (SHIPPED / CONFIG).write_text(json.dumps(named.model_dump(mode="json"), indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Run one of the steps."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=["proof", "theory", "checkpoint"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cells", default=f"0:{len(CELLS)}")
    arguments = parser.parse_args()
    if arguments.step == "proof":
        first, _, last = arguments.cells.partition(":")
        measure(arguments.folder, int(first), int(last))
    else:
        {"theory": theory, "checkpoint": checkpoint}[arguments.step](arguments.folder)


if __name__ == "__main__":
    main()
