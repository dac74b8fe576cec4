"""Makes what ``weights/`` holds: the whole proof, cell by cell, and the shipped classifiers.

``python -m models.sam.ship proof ROWS.jsonl --cells 0:21`` measures cells and appends them to the file;
``python -m models.sam.ship train FOLDER --subject sgd`` trains one of the classifiers (it goes on after a kill);
``python -m models.sam.ship write FOLDER`` writes ``weights/`` from the trained ones and ``FOLDER/proof.jsonl``.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from models.core.checkpoint import CONFIG, WEIGHTS, Checkpoint
from models.core.classification import train_classifier, user_figures
from models.core.parts import Row
from models.core.run import LocalRun
from models.core.sources import load
from models.core.trainer_options import SharpnessAware
from models.sam.evaluate import DEFAULT, DOUBLE_VERSION, SGD_VERSION, SHIPPED, write_figures
from models.sam.proof import CELLS, measure_cell
from models.sam.schema import Config

_NONE, _SAM = SharpnessAware(), SharpnessAware(kind="sam", rho=0.1)
_RECIPE = Config(encoder="small-cnn", epochs=8, learning_rate=0.05, test_share=0)
CLASSIFIERS = {
    DEFAULT: _RECIPE.model_copy(update={"sharpness_aware": _SAM}),
    SGD_VERSION: _RECIPE.model_copy(update={"sharpness_aware": _NONE}),
    DOUBLE_VERSION: _RECIPE.model_copy(update={"sharpness_aware": _NONE, "epochs": 2 * _RECIPE.epochs}),
}


def measure(path: Path, first: int, last: int) -> None:
    """Measure the cells ``first..last-1`` that the file does not hold yet."""
    done = {_key(row) for row in read_rows(path)}
    for cell in CELLS[first:last]:
        if (cell.arm, cell.noise, cell.seed) in done:
            continue
        with tempfile.TemporaryDirectory() as folder:
            row = measure_cell(cell, LocalRun(Path(folder)))
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        print(f"{cell.setting}, {cell.arm}, seed {cell.seed}: {row['final']:.4f}", flush=True)


def read_rows(path: Path) -> list[Row]:
    """The measured cells in the order of the proof; none where there is no file."""
    if not path.exists():
        return []
    order: dict[tuple[object, ...], int] = {(c.arm, c.noise, c.seed): number for number, c in enumerate(CELLS)}
    rows: list[Row] = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return sorted(rows, key=lambda row: order[_key(row)])


def _key(row: Row) -> tuple[object, ...]:
    return row["arm"], row["noise"], row["seed"]


def train(folder: Path, subject: str) -> None:
    """Train one of :data:`CLASSIFIERS` on all of Fashion-MNIST; it goes on where it was killed."""
    run = LocalRun(folder / subject)
    checkpoint = train_classifier("sam", load("fashion-mnist", "train"), CLASSIFIERS[subject], run)
    print(user_figures(checkpoint, load("fashion-mnist", "test"), "cpu")[0].value)


def write(folder: Path) -> None:
    """Copy the checkpoints into ``weights/`` under their versions and write their figures."""
    trained = {name: Checkpoint(folder / name / "scratch" / "checkpoint") for name in CLASSIFIERS}
    for name, target in ((DEFAULT, SHIPPED), (SGD_VERSION, SHIPPED / SGD_VERSION)):
        target.mkdir(parents=True, exist_ok=True)
        (target / WEIGHTS).write_bytes((trained[name].folder / WEIGHTS).read_bytes())
        named = trained[name].config.model_copy(
            update={"version": name, "command": f"python -m models.sam.ship train runs/sam --subject {name}"}
        )
        (target / CONFIG).write_text(json.dumps(named.model_dump(mode="json"), indent=2) + "\n", encoding="utf-8")
    write_figures(read_rows(folder / "proof.jsonl"), trained)


def main() -> None:
    """Run one of the steps."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=["proof", "train", "write"])
    parser.add_argument("path", type=Path)
    parser.add_argument("--cells", default=f"0:{len(CELLS)}")
    parser.add_argument("--subject", choices=list(CLASSIFIERS), default=DEFAULT)
    arguments = parser.parse_args()
    if arguments.step == "proof":
        first, _, last = arguments.cells.partition(":")
        measure(arguments.path, int(first), int(last))
    elif arguments.step == "train":
        train(arguments.path, arguments.subject)
    else:
        write(arguments.path)


if __name__ == "__main__":
    main()
