"""Makes what ``weights/`` holds: the whole proof and the shipped classifiers.

``python -m models.sam.ship proof FOLDER`` measures the groups of the proof into ``FOLDER/proof.jsonl``, those whose
number modulo ``--of`` is ``--part``;
``python -m models.sam.ship train FOLDER --subject sgd --seed 0`` trains and judges a classifier;
``python -m models.sam.ship trainers FOLDER --subject aum --seed 0`` compares another method's training with and
without SAM; ``python -m models.sam.ship time FOLDER`` measures the cost of a step;
``python -m models.sam.ship write FOLDER`` writes ``weights/`` from all of them.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterable
from pathlib import Path

from models.core.checkpoint import CONFIG, WEIGHTS, Checkpoint
from models.core.classification import train_classifier
from models.core.devices import device_name, pick_device
from models.core.parts import Row
from models.core.run import LocalRun
from models.core.sources import load
from models.core.trainer_options import SharpnessAware
from models.sam.evaluate import (
    CLASSIFIER_SEEDS,
    DEFAULT,
    DOUBLE_VERSION,
    SGD_VERSION,
    SHIPPED,
    classifier_row,
    write_figures,
)
from models.sam.proof import CELLS, groups, measure_group
from models.sam.schema import Config
from models.sam.timing import measure_steps
from models.sam.trainers import RADII, TRAINERS, measure_trainer

_NONE, _SAM = SharpnessAware(), SharpnessAware(kind="sam", rho=0.1)
_RECIPE = Config(encoder="wrn-10-2", shift=2, test_share=0)
CLASSIFIERS = {
    DEFAULT: _RECIPE.model_copy(update={"sharpness_aware": _SAM}),
    SGD_VERSION: _RECIPE.model_copy(update={"sharpness_aware": _NONE}),
    DOUBLE_VERSION: _RECIPE.model_copy(update={"sharpness_aware": _NONE, "epochs": 2 * _RECIPE.epochs}),
}
TABLES = ("proof", "classifiers", "trainers", "timing")


def append(path: Path, rows: Iterable[Row], device: str) -> None:
    """Add rows with the name of the device to a file of JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    named = device_name(pick_device(device))
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(row | {"device": named}) + "\n" for row in rows)


def read_rows(path: Path) -> list[Row]:
    """The rows of a file; none where there is no file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def proof(folder: Path, part: int, of: int, device: str) -> None:
    """Measure the groups of cells that the file does not hold yet."""
    path = folder / "proof.jsonl"
    for group in groups(CELLS)[part::of]:
        done = {_key(row) for row in read_rows(path)}
        cells = [cell for cell in group if (cell.arm, cell.noise, cell.seed) not in done]
        if cells:
            with tempfile.TemporaryDirectory() as scratch:
                append(path, measure_group(cells, LocalRun(Path(scratch), device=device)), device)
            print(f"{len(cells)} cells at {cells[0].noise:.0%}, {cells[0].arm} and others", flush=True)


def _key(row: Row) -> tuple[object, ...]:
    return row["arm"], row["noise"], row["seed"]


def train(folder: Path, subject: str, seed: int, device: str) -> None:
    """Train one of :data:`CLASSIFIERS` on all of Fashion-MNIST and judge it; it goes on where it was killed."""
    run = LocalRun(folder / f"{subject}-{seed}", seed=seed, device=device)
    checkpoint = train_classifier("sam", load("fashion-mnist", "train"), CLASSIFIERS[subject], run)
    row = classifier_row(checkpoint, subject, device)
    append(folder / "classifiers.jsonl", [row], device)
    print(subject, seed, row["accuracy"], flush=True)


def trainers(folder: Path, slug: str, seed: int, device: str) -> None:
    """Train another method without SAM and with each radius."""
    for rho in RADII:
        with tempfile.TemporaryDirectory() as scratch:
            row = measure_trainer(slug, rho, seed, LocalRun(Path(scratch), seed=seed, device=device))
        append(folder / "trainers.jsonl", [row], device)
        print(row, flush=True)


def timing(folder: Path, device: str) -> None:
    """Measure the cost of a step on the proof's network, the shipped one's and the paper's."""
    for architecture in ("mlp", "wrn-10-2", "wrn-28-10") if device != "cpu" else ("mlp", "wrn-10-2"):
        row = measure_steps(architecture, pick_device(device))
        append(folder / "timing.jsonl", [row], device)
        print(row, flush=True)


def write(folder: Path) -> None:
    """Copy the checkpoints of the first seed into ``weights/`` under their versions and write their figures."""
    for name, target in ((DEFAULT, SHIPPED), (SGD_VERSION, SHIPPED / SGD_VERSION)):
        trained = Checkpoint(folder / f"{name}-{CLASSIFIER_SEEDS[0]}" / "scratch" / "checkpoint")
        target.mkdir(parents=True, exist_ok=True)
        (target / WEIGHTS).write_bytes((trained.folder / WEIGHTS).read_bytes())
        command = f"python -m models.sam.ship train runs/sam --subject {name}"
        named = trained.config.model_copy(update={"version": name, "command": command})
        (target / CONFIG).write_text(json.dumps(named.model_dump(mode="json"), indent=2) + "\n", encoding="utf-8")
    write_figures({name: read_rows(folder / f"{name}.jsonl") for name in TABLES})


def main() -> None:
    """Run one of the steps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=["proof", "train", "trainers", "time", "write"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--part", type=int, default=0)
    parser.add_argument("--of", type=int, default=1)
    parser.add_argument("--subject", choices=[*CLASSIFIERS, *TRAINERS], default=DEFAULT)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    if given.step == "proof":
        proof(given.folder, given.part, given.of, given.device)
    elif given.step == "train":
        train(given.folder, given.subject, given.seed, given.device)
    elif given.step == "trainers":
        trainers(given.folder, given.subject, given.seed, given.device)
    elif given.step == "time":
        timing(given.folder, given.device)
    else:
        write(given.folder)


if __name__ == "__main__":
    main()
