"""What ``evaluate`` measures: the proof (see :mod:`models.sam.proof`) and the shipped classifiers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from models.core.checkpoint import Checkpoint
from models.core.classification import user_figures
from models.core.classifiers import as_tensor, read_classifier
from models.core.dataset import Dataset
from models.core.figures import Figures, measured
from models.core.inputs import ImageSpec
from models.core.parts import Row, measure_parts
from models.core.run import Run
from models.core.sources import load
from models.sam.findings import (
    PROOF_NOISE,
    classifier_claims,
    classifier_figures,
    proof_claims,
    proof_figures,
    proof_table,
)
from models.sam.pictures import draw_proof
from models.sam.proof import BEST, CELLS, CURVATURE_ROWS, SGD, Cell, curvature, measure_cell

# The whole proof takes about a quarter of an hour on one core; these cells take half a minute.
QUICK = (Cell(SGD, PROOF_NOISE, 0), Cell(BEST, PROOF_NOISE, 0))
SHIPPED = Path(__file__).parent / "weights"
DEFAULT, SGD_VERSION, DOUBLE_VERSION = "1", "sgd", "sgd-double"
SUBJECTS = {DEFAULT: "method", SGD_VERSION: "SGD (sam@sgd)", DOUBLE_VERSION: "SGD, twice the epochs"}


def evaluate_method(checkpoint: Checkpoint, run: Run, dataset: Dataset | None) -> Figures:
    """Measure ``checkpoint`` on ``dataset``, or a part of the proof and it again beside the stored whole.

    Raises:
        MethodError: the data set does not fit the checkpoint.
        DataUnavailableError: Fashion-MNIST can neither be found nor fetched.
        Cancelled: the user asked for it.
    """
    return measured(
        dataset,
        lambda given: user_figures(checkpoint, given, run.device),
        lambda: _prove(checkpoint, run),
        f"deepnight evaluate sam@{checkpoint.config.version}",
    )


def _prove(checkpoint: Checkpoint, run: Run) -> Figures:
    stored = Checkpoint(SHIPPED).figures
    tables: Mapping[str, list[Row]] = {} if stored is None else stored.tables
    proof = tables.get("proof", [])
    cells = QUICK if proof else CELLS
    titles = [f"{cell.setting}, {cell.arm}, seed {cell.seed}" for cell in cells]
    rows = measure_parts(run, titles, lambda number, part: measure_cell(cells[number], part))
    figures = summarise(proof or rows, tables.get("classifiers", []))
    draw_proof(run.artifact("sam.png", "image/png"), proof_table(proof or rows, PROOF_NOISE))
    if proof:
        figures.tables["measured again"] = rows
        figures.claims += [_comparison(row, proof) for row in rows]
    figures.claims += _again(checkpoint, run, tables.get("classifiers", []))
    return figures


def summarise(rows: Sequence[Row], classifiers: Sequence[Row]) -> Figures:
    """Figures, tables and claims of the whole proof."""
    figures, claims, tables = proof_figures(rows), proof_claims(rows), {"proof": list(rows)}
    if classifiers:
        figures = [*classifier_figures(classifiers), *figures]
        claims = [*classifier_claims(classifiers), *claims]
        tables["classifiers"] = list(classifiers)
    hashes = {f"fashion-mnist/{split}": load("fashion-mnist", split).sha256 for split in ("train", "test")}
    return Figures(figures=figures, claims=claims, tables=tables, data_sha256=hashes)


def _comparison(row: Row, stored: Sequence[Row]) -> str:
    twin = next(other for other in stored if all(other[name] == row[name] for name in ("arm", "noise", "seed")))
    return (
        f"{row['arm']}, seed {row['seed']}, measured again: {row['final']:.4f} at the last epoch, stored "
        f"{twin['final']:.4f}; largest eigenvalue {row['lambda_max']:.3f}, stored {twin['lambda_max']:.3f}."
    )


def _again(checkpoint: Checkpoint, run: Run, stored: Sequence[Row]) -> list[str]:
    """The accuracy of a Fashion-MNIST classifier, measured now."""
    test = load("fashion-mnist", "test")
    if checkpoint.config.class_names != test.class_names:
        return []
    now = user_figures(checkpoint, test, run.device)[0].value
    name = checkpoint.config.version
    twin = [f", stored {row['accuracy']:.4f}" for row in stored if row["version"] == name]
    return [f"sam@{name} on the test set, measured again: {now:.4f}{''.join(twin)}."]


def classifier_row(checkpoint: Checkpoint, version: str) -> Row:
    """Accuracy on the test set and sharpness on 1,000 training pictures of one trained classifier."""
    train, test = load("fashion-mnist", "train"), load("fashion-mnist", "test")
    spec = checkpoint.config.input
    assert isinstance(spec, ImageSpec)
    chosen = train.select(range(CURVATURE_ROWS))
    accuracy, entropy = (figure.value for figure in user_figures(checkpoint, test, "cpu"))
    rows = as_tensor(chosen, spec), torch.from_numpy(chosen.require_labels())
    facts = checkpoint.config.outputs
    return {
        "version": version, "subject": SUBJECTS[version], "epochs": int(checkpoint.config.config["epochs"]),
        "steps": int(facts["steps"]), "perturbed_steps": int(facts["perturbed_steps"]),
        "accuracy": accuracy, "cross_entropy": entropy, **curvature(read_classifier(checkpoint), *rows),
    }  # fmt: skip


def write_figures(rows: Sequence[Row], trained: Mapping[str, Checkpoint]) -> None:
    """Write the figures of the shipped versions from the rows of the proof and the trained classifiers."""
    figures = summarise(rows, [classifier_row(checkpoint, version) for version, checkpoint in trained.items()])
    figures.command = "python -m models.sam.ship"
    for folder in (SHIPPED, SHIPPED / SGD_VERSION):
        Checkpoint(folder).write_figures(figures)
