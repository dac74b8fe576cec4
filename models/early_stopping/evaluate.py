"""What ``evaluate`` measures: the proof (see :mod:`models.early_stopping.proof`) and the shipped classifier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from models.core.checkpoint import Checkpoint
from models.core.classification import user_figures
from models.core.dataset import Dataset
from models.core.devices import pick_device
from models.core.figures import Figure, Figures, measured
from models.core.parts import Row, measure_parts
from models.core.run import Run
from models.core.sources import load
from models.early_stopping.findings import proof_claims, proof_figures, theory_claims
from models.early_stopping.pictures import draw_robustness
from models.early_stopping.proof import CELLS, TITLES, Cell, measure_cell, measure_law, measure_theory

# The whole proof is for a GPU; this cell takes two minutes of one core.
QUICK = (Cell("fashion-mnist", 0.4, 0),)
THEORY_SEEDS = (0, 1, 2, 3, 4)
SHIPPED = Path(__file__).parent / "weights"
SHIPPED_SETTING = "Fashion-MNIST test set, after training on 10,000 pictures with 40% wrong labels, 1 seed"
_KEY = ("data", "noise", "seed")


def evaluate_method(checkpoint: Checkpoint, run: Run, dataset: Dataset | None) -> Figures:
    """Measure ``checkpoint`` on ``dataset``, or prove: the whole proof on a GPU, else a part beside the stored whole.

    Raises:
        MethodError: the data set does not fit the checkpoint.
        DataUnavailableError: a data set of the proof can neither be found nor fetched.
        Cancelled: the user asked for it.
    """
    return measured(
        dataset,
        lambda given: user_figures(checkpoint, given, run.device),
        lambda: _prove(checkpoint, run),
        "deepnight evaluate early-stopping",
    )


def _prove(checkpoint: Checkpoint, run: Run) -> Figures:
    stored = Checkpoint(SHIPPED).figures
    tables: dict[str, list[Row]] = {} if stored is None else dict(stored.tables)
    whole = not tables or pick_device(run.device).type == "cuda"
    cells = CELLS if whole else QUICK

    def measure(number: int, part: Run) -> dict[str, Any]:
        row, curve = measure_cell(cells[number], part)
        return {"row": row, "curve": curve}

    measured = measure_parts(run, [f"{cell.setting}, seed {cell.seed}" for cell in cells], measure)
    rows = [found["row"] for found in measured]
    if whole:
        run.progress(1.0, "theory")
        curves = [
            {"data": cell.data, "noise": cell.noise, "seed": cell.seed, **point}
            for cell, found in zip(cells, measured, strict=True)
            for point in found["curve"]
        ]
        tables |= {"proof": rows, "curves": shown_curves(curves), **measure_theorems()}
    draw_robustness(run.artifact("early-stopping.png", "image/png"), _panels(tables))
    kept = [] if stored is None else [figure for figure in stored.figures if figure.setting == SHIPPED_SETTING]
    figures = summarise(tables, kept)
    if not whole:
        figures.tables["measured again"] = rows
        figures.claims += [_comparison(row, tables["proof"]) for row in rows]
    figures.claims += _again(checkpoint, run, kept)
    return figures


def shown_curves(curves: Sequence[Row]) -> list[Row]:
    """Those of all curves that are kept and drawn: Fashion-MNIST, the first seed."""
    return [row for row in curves if (row["data"], row["seed"]) == (QUICK[0].data, QUICK[0].seed)]


def _panels(tables: Mapping[str, list[Row]]) -> dict[str, dict[str, Any]]:
    panels: dict[str, dict[str, Any]] = {}
    kept = {row["noise"]: row["stopped_epoch"] for row in shown_curves(tables["proof"])}
    for row in sorted(tables["curves"], key=lambda point: float(point["noise"] or 0)):
        name = f"{float(row['noise'] or 0):.0%} wrong labels"
        panels.setdefault(name, {"epoch": kept[row["noise"]], "curve": []})["curve"].append(row)
    return panels


def measure_theorems() -> dict[str, list[Row]]:
    """The tables ``theory`` and ``law``, over all seeds."""
    return {
        "theory": [row for seed in THEORY_SEEDS for row in measure_theory(seed)],
        "law": [row for seed in THEORY_SEEDS for row in measure_law(seed)],
    }


def summarise(tables: Mapping[str, list[Row]], shipped: Sequence[Figure]) -> Figures:
    """Figures and claims of the whole proof from its tables ``proof``, ``theory`` and ``law``."""
    names = (f"{name}/{split}" for name in ("fashion-mnist", "digits") for split in ("train", "test"))
    hashes = {name: load(*name.split("/")).sha256 for name in names}
    return Figures(
        figures=[*shipped, *proof_figures(tables["proof"])],
        claims=[*proof_claims(tables["proof"]), *theory_claims(tables["theory"], tables["law"])],
        tables=dict(tables),
        data_sha256=hashes,
    )


def _comparison(row: Row, stored: Sequence[Row]) -> str:
    twin = next(other for other in stored if all(other[name] == row[name] for name in _KEY))
    return (
        f"{TITLES[str(row['data'])]}, {float(row['noise'] or 0):.0%} wrong labels, seed {row['seed']}, measured again: "
        f"stopped {row['stopped']:.4f} at epoch {row['stopped_epoch']}, last {row['last']:.4f}; stored "
        f"{twin['stopped']:.4f} and {twin['last']:.4f}."
    )


def _again(checkpoint: Checkpoint, run: Run, stored: Sequence[Figure]) -> list[str]:
    """The accuracy of a Fashion-MNIST classifier, measured now."""
    test = load("fashion-mnist", "test")
    if checkpoint.config.class_names != test.class_names:
        return []
    now = user_figures(checkpoint, test, run.device)[0].value
    before = [f", stored {figure.value:.4f}" for figure in stored]
    shipped = checkpoint.config.weights_sha256 == Checkpoint(SHIPPED).config.weights_sha256
    return [f"The version on the test set, measured again: {now:.4f}{''.join(before) if shipped else ''}."]
