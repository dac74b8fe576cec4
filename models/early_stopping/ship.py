"""Makes what ``weights/`` holds: the whole proof, cell by cell, and the shipped classifier.

``python -m models.early_stopping.ship proof FOLDER`` measures the cells whose number modulo ``--of`` is ``--part``;
``python -m models.early_stopping.ship theory FOLDER`` measures the theorems on clustered data;
``python -m models.early_stopping.ship train FOLDER`` trains the classifier;
``python -m models.early_stopping.ship write FOLDER`` writes ``weights/`` from all of them.
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
from models.core.devices import device_name, pick_device
from models.core.figures import Figure
from models.core.noise import corrupt_labels
from models.core.parts import Row
from models.core.run import LocalRun
from models.core.sources import load
from models.core.trainer_options import EarlyStopping
from models.early_stopping.evaluate import SHIPPED, SHIPPED_SETTING, measure_theorems, shown_curves, summarise
from models.early_stopping.proof import CELLS, measure_cell
from models.early_stopping.schema import Config

ROWS, RATE = 10_000, 0.4
STOPPED = Config(early_stopping=EarlyStopping(noise_rate=RATE), test_share=0)


def _append(path: Path, rows: Sequence[Row]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def read_rows(path: Path) -> list[Row]:
    """The rows of a file; none where there is no file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def proof(folder: Path, part: int, of: int, device: str) -> None:
    """Measure the cells whose number modulo ``of`` is ``part`` and that the file does not hold yet."""
    path = folder / "proof.jsonl"
    named = device_name(pick_device(device))
    for cell in CELLS[part::of]:
        if (cell.data, cell.noise, cell.seed) in {(row["data"], row["noise"], row["seed"]) for row in read_rows(path)}:
            continue
        with tempfile.TemporaryDirectory() as scratch:
            row, curve = measure_cell(cell, LocalRun(Path(scratch), device=device))
        _append(path, [row | {"device": named}])
        facts: Row = {"data": cell.data, "noise": cell.noise, "seed": cell.seed}
        _append(folder / "curves.jsonl", [facts | point for point in curve])
        print(cell, row["stopped"], row["last"], flush=True)


def theory(folder: Path) -> None:
    """Measure both theorems with every seed."""
    for name, rows in measure_theorems().items():
        _append(folder / f"{name}.jsonl", rows)


def noisy_data() -> Dataset:
    """The pictures of the shipped classifier, 40% of whose labels are wrong."""
    clean = load("fashion-mnist", "train")
    chosen = clean.select(np.random.default_rng(0).permutation(len(clean))[:ROWS])
    labels = corrupt_labels(chosen.require_labels(), 10, kind="uniform", rate=RATE, seed=0)
    return replace(chosen, labels=labels, name=f"fashion-mnist, {ROWS:,} pictures, {RATE:.0%} wrong labels")


def train(folder: Path, device: str) -> None:
    """Train the classifier; it goes on where it was killed."""
    trained = train_classifier("early-stopping", noisy_data(), STOPPED, LocalRun(folder / "checkpoint", device=device))
    print(user_figures(trained, load("fashion-mnist", "test"), device)[0].value, flush=True)


def write(folder: Path) -> None:
    """Copy the trained classifier, where the folder holds one, into ``weights/`` and write all figures."""
    source = folder / "checkpoint" / "scratch" / "checkpoint"
    if source.exists():
        _copy(Checkpoint(source))
    value = user_figures(Checkpoint(SHIPPED), load("fashion-mnist", "test"), "cpu")[0].value
    tables = {name: read_rows(folder / f"{name}.jsonl") for name in ("proof", "theory", "law", "curves")}
    tables["curves"] = shown_curves(tables["curves"])
    found = summarise(tables, [Figure(name="accuracy", value=value, setting=SHIPPED_SETTING, headline=True)])
    found.command = "python -m models.early_stopping.ship"
    Checkpoint(SHIPPED).write_figures(found)


def _copy(trained: Checkpoint) -> None:
    SHIPPED.mkdir(parents=True, exist_ok=True)
    (SHIPPED / WEIGHTS).write_bytes((trained.folder / WEIGHTS).read_bytes())
    named = trained.config.model_copy(
        update={"command": "python -m models.early_stopping.ship train runs/early-stopping"}
    )
    (SHIPPED / CONFIG).write_text(json.dumps(named.model_dump(mode="json"), indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Run one of the steps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=["proof", "theory", "train", "write"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--part", type=int, default=0)
    parser.add_argument("--of", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    if given.step == "proof":
        proof(given.folder, given.part, given.of, given.device)
    elif given.step == "train":
        train(given.folder, given.device)
    elif given.step == "theory":
        theory(given.folder)
    else:
        write(given.folder)


if __name__ == "__main__":
    main()
