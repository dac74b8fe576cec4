"""Makes what ``weights/`` holds: the whole proof and the shipped classifiers.

``python -m models.sam.ship proof FOLDER`` measures cells of the proof into ``FOLDER/proof.jsonl``, those of
``--noise``, ``--arms`` and ``--seeds``;
``python -m models.sam.ship train FOLDER --subject sgd --seed 0`` trains and judges a classifier;
``python -m models.sam.ship trainers FOLDER --subject aum --seed 0`` compares another method's training with and
without SAM; ``python -m models.sam.ship time FOLDER`` measures the cost of a step;
``python -m models.sam.ship write FOLDER`` writes ``weights/`` from all of them.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from models.core.checkpoint import CONFIG, WEIGHTS, Checkpoint
from models.core.classification import train_classifier
from models.core.devices import device_name, pick_device
from models.core.parts import Row
from models.core.run import LocalRun
from models.core.sources import load
from models.core.trainer_options import SharpnessAware
from models.sam.evaluate import DEFAULT, DOUBLE_VERSION, SGD_VERSION, SHIPPED, SUBJECTS, classifier_row, write_figures
from models.sam.proof import ARMS, CELLS, NOISES, SEEDS, Cell, groups, measure_group
from models.sam.schema import Config
from models.sam.timing import measure_steps
from models.sam.trainers import RADII, TRAINERS, measure_trainer

_NONE, _SAM = SharpnessAware(), SharpnessAware(kind="sam", rho=0.1)
RECIPES = {
    "small-cnn": Config(encoder="small-cnn", epochs=8, learning_rate=0.05, test_share=0),
    "wrn-10-2": Config(encoder="wrn-10-2", shift=2, test_share=0),
}


def classifier(network: str, version: str) -> Config:
    """The configuration of one of the compared classifiers, see :data:`models.sam.evaluate.SUBJECTS`."""
    recipe = RECIPES[network]
    options = _SAM if version == DEFAULT else _NONE
    epochs = recipe.epochs * (2 if version == DOUBLE_VERSION else 1)
    return recipe.model_copy(update={"sharpness_aware": options, "epochs": epochs})


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


def proof(folder: Path, wanted: Sequence[Cell], device: str) -> None:
    """Measure those of the cells that the file does not hold yet, group by group."""
    path = folder / "proof.jsonl"
    done = {_key(row) for row in read_rows(path)}
    for cells in groups([cell for cell in wanted if (cell.arm, cell.noise, cell.seed) not in done]):
        with tempfile.TemporaryDirectory() as scratch:
            append(path, measure_group(cells, LocalRun(Path(scratch), device=device)), device)
        print(f"{len(cells)} cells at {cells[0].noise:.0%}, {cells[0].arm} and others", flush=True)


def _key(row: Row) -> tuple[object, ...]:
    return row["arm"], row["noise"], row["seed"]


def train(folder: Path, network: str, subject: str, seed: int, device: str) -> None:
    """Train a classifier on all of Fashion-MNIST and judge it; it goes on where it was killed."""
    run = LocalRun(folder / f"{network}-{subject}-{seed}", seed=seed, device=device)
    checkpoint = train_classifier("sam", load("fashion-mnist", "train"), classifier(network, subject), run)
    row = classifier_row(checkpoint, subject, device)
    append(folder / "classifiers.jsonl", [row], device)
    print(network, subject, seed, row["accuracy"], flush=True)


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


def write(folder: Path, network: str) -> None:
    """Copy the network's versions of seed 0, where the folder holds them, into ``weights/``; write all figures."""
    for name, target in ((DEFAULT, SHIPPED), (SGD_VERSION, SHIPPED / SGD_VERSION)):
        source = folder / f"{network}-{name}-0" / "scratch" / "checkpoint"
        if not source.exists():
            continue
        trained = Checkpoint(source)
        target.mkdir(parents=True, exist_ok=True)
        (target / WEIGHTS).write_bytes((trained.folder / WEIGHTS).read_bytes())
        command = f"python -m models.sam.ship train runs/sam --network {network} --subject {name}"
        named = trained.config.model_copy(update={"version": name, "command": command})
        (target / CONFIG).write_text(json.dumps(named.model_dump(mode="json"), indent=2) + "\n", encoding="utf-8")
    write_figures({name: read_rows(folder / f"{name}.jsonl") for name in TABLES})


def main() -> None:
    """Run one of the steps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=["proof", "train", "trainers", "time", "write"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--subject", choices=[*SUBJECTS, *TRAINERS], default=DEFAULT)
    parser.add_argument("--network", choices=list(RECIPES), default="small-cnn")
    parser.add_argument("--noise", type=float, nargs="+", default=list(NOISES))
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    if given.step == "proof":
        wanted = [c for c in CELLS if c.noise in given.noise and c.arm in given.arms and c.seed in given.seeds]
        proof(given.folder, wanted, given.device)
    elif given.step == "train":
        train(given.folder, given.network, given.subject, given.seed, given.device)
    elif given.step == "trainers":
        trainers(given.folder, given.subject, given.seed, given.device)
    elif given.step == "time":
        timing(given.folder, given.device)
    else:
        write(given.folder, given.network)


if __name__ == "__main__":
    main()
