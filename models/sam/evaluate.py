"""What ``evaluate`` measures: the proof (see :mod:`models.sam.proof`) and the shipped classifiers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from models.core.checkpoint import Checkpoint
from models.core.classification import user_figures
from models.core.classifiers import as_tensor, read_classifier
from models.core.dataset import Dataset
from models.core.devices import pick_device
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
    timing_claims,
    trainer_claims,
    trainer_figures,
)
from models.sam.pictures import draw_proof
from models.sam.proof import BEST, CELLS, CURVATURE_ROWS, SGD, Cell, curvature, groups, measure_group

# The whole proof is for a GPU; these cells take half a minute of one core.
QUICK = (Cell(SGD, PROOF_NOISE, 0), Cell(BEST, PROOF_NOISE, 0))
SHIPPED = Path(__file__).parent / "weights"
DEFAULT, SGD_VERSION, DOUBLE_VERSION = "1", "sgd", "sgd-double"
SUBJECTS = {DEFAULT: "method", SGD_VERSION: "SGD (sam@sgd)", DOUBLE_VERSION: "SGD, twice the epochs"}
Tables = Mapping[str, list[Row]]


def evaluate_method(checkpoint: Checkpoint, run: Run, dataset: Dataset | None) -> Figures:
    """Measure ``checkpoint`` on ``dataset``, or prove: the whole proof on a GPU, else a part beside the stored whole.

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
    tables: dict[str, list[Row]] = {} if stored is None else dict(stored.tables)
    whole = not tables or pick_device(run.device).type == "cuda"
    parts = groups(CELLS if whole else QUICK)

    def measure(number: int, part: Run) -> dict[str, Any]:
        return {"rows": measure_group(parts[number], part)}

    titles = [f"{len(cells)} trainings, {cells[0].noise:.0%} wrong labels, {cells[0].arm}" for cells in parts]
    rows = [row for found in measure_parts(run, titles, measure) for row in found["rows"]]
    proof = rows if whole else tables["proof"]
    figures = summarise(tables | {"proof": proof})
    draw_proof(run.artifact("sam.png", "image/png"), proof_table(proof, PROOF_NOISE))
    if not whole:
        figures.tables["measured again"] = rows
        figures.claims += [_comparison(row, proof) for row in rows]
    figures.claims += _again(checkpoint, run, tables.get("classifiers", []))
    return figures


def summarise(tables: Tables) -> Figures:
    """Figures and claims of the whole proof from its tables ``proof``, ``classifiers``, ``trainers`` and ``timing``."""
    proof, classifiers, trainers, timing = (
        tables.get(name, []) for name in ("proof", "classifiers", "trainers", "timing")
    )
    hashes = {f"fashion-mnist/{split}": load("fashion-mnist", split).sha256 for split in ("train", "test")}
    return Figures(
        figures=[*classifier_figures(classifiers), *proof_figures(proof), *trainer_figures(trainers)],
        claims=[
            *classifier_claims(classifiers), *proof_claims(proof), *trainer_claims(trainers), *timing_claims(timing),
        ],
        tables={name: list(rows) for name, rows in tables.items()},
        data_sha256=hashes,
    )  # fmt: skip


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
    config = checkpoint.config
    key = config.version, config.seed, config.outputs["architecture"]
    twins = [row for row in stored if (row["version"], row["seed"], row["network"]) == key]
    before = [f", stored {row['accuracy']:.4f}" for row in twins]
    return [f"sam@{config.version} on the test set, measured again: {now:.4f}{''.join(before)}."]


def classifier_row(checkpoint: Checkpoint, version: str, device: str) -> Row:
    """Accuracy on the test set and sharpness on 1,000 training pictures of one trained classifier."""
    train, test = load("fashion-mnist", "train"), load("fashion-mnist", "test")
    spec = checkpoint.config.input
    assert isinstance(spec, ImageSpec)
    chosen = train.select(range(CURVATURE_ROWS))
    accuracy, entropy = (figure.value for figure in user_figures(checkpoint, test, device))
    rows = as_tensor(chosen, spec), torch.from_numpy(chosen.require_labels())
    facts, network = checkpoint.config.outputs, read_classifier(checkpoint).to(pick_device(device))
    return {
        "version": version, "subject": SUBJECTS[version], "network": facts["architecture"],
        "seed": checkpoint.config.seed, "epochs": int(checkpoint.config.config["epochs"]),
        "steps": int(facts["steps"]), "perturbed_steps": int(facts["perturbed_steps"]),
        "accuracy": accuracy, "cross_entropy": entropy, **curvature(network, *rows),
    }  # fmt: skip


def write_figures(tables: Tables) -> None:
    """Write the figures of the shipped versions from what was measured."""
    figures = summarise(tables)
    figures.command = "python -m models.sam.ship"
    for folder in (SHIPPED, SHIPPED / SGD_VERSION):
        Checkpoint(folder).write_figures(figures)
