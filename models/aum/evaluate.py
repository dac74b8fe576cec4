"""What ``evaluate`` measures: the proof (see :mod:`models.aum.proof`) and the accuracy of a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from models.aum.cells import Cell
from models.aum.findings import summarise
from models.aum.proof import measure_cells
from models.aum.train import dataset_inputs, read_networks
from models.core.checkpoint import Checkpoint
from models.core.classification import label_figures
from models.core.classifiers import logits_of
from models.core.dataset import Dataset
from models.core.devices import pick_device
from models.core.figures import Figure, Figures, measured
from models.core.parts import Row, measure_parts
from models.core.run import Run
from models.core.sources import load

# All stored cells take about forty minutes of one core; these take two.
QUICK = (Cell("fashion-mnist", 8_000, "uniform", 0.4, 0), Cell("digits", 8_000, "flip", 0.2, 0))
WEIGHTS = Path(__file__).parent / "weights"
SHIPPED_SETTING = "clean test set, after training on fashion-mnist, uniform 20%, N=60,000"


def evaluate_method(checkpoint: Checkpoint, run: Run, dataset: Dataset | None) -> Figures:
    """Measure ``checkpoint`` on ``dataset``, or re-measure two cells of the proof beside the stored whole.

    Raises:
        MethodError: the data set does not fit the checkpoint.
        DataUnavailableError: Fashion-MNIST can neither be found nor fetched.
        Cancelled: the user asked for it.
    """
    return measured(
        dataset,
        lambda given: classification_figures(checkpoint, run, given),
        lambda: _prove(checkpoint, run),
        "deepnight evaluate aum",
    )


def _prove(checkpoint: Checkpoint, run: Run) -> Figures:
    stored = Checkpoint(WEIGHTS).figures
    proof = [] if stored is None else stored.tables["proof"]
    titles = [f"{cell.setting}, seed {cell.seed}" for cell in QUICK]
    rows: list[Row] = measure_parts(run, titles, lambda number, part: measure_cells([QUICK[number]], part)[0])
    figures = summarise(proof or rows)
    if proof:
        figures.tables["measured again"] = rows
        figures.claims.append(f"The tables are stored from {len(proof)} cells; {len(rows)} were measured again now.")
        figures.claims += [_comparison(row, proof) for row in rows]
    kept = [] if stored is None else [f for f in stored.figures if f.setting == SHIPPED_SETTING]
    figures.figures = [*_shipped_accuracy(checkpoint, run, kept), *figures.figures]
    figures.data_sha256 = data_hashes()
    return figures


def _shipped_accuracy(checkpoint: Checkpoint, run: Run, stored: list[Figure]) -> list[Figure]:
    """Accuracy of a Fashion-MNIST classifier, measured now; the shipped one's before those of its baselines."""
    test = load("fashion-mnist", "test")
    if checkpoint.config.class_names != test.class_names:
        return []
    accuracy = classification_figures(checkpoint, run, test)[0]
    if checkpoint.config.weights_sha256 != Checkpoint(WEIGHTS).config.weights_sha256:
        return [accuracy]
    measured = accuracy.model_copy(update={"setting": SHIPPED_SETTING, "headline": True})
    return [measured, *(figure for figure in stored if figure.subject != "method")]


def data_hashes() -> dict[str, str]:
    """Content hashes of the data that the proof uses."""
    return {
        f"{name}/{split}": load(name, split).sha256
        for name in ("fashion-mnist", "digits")
        for split in ("train", "test")
    }


def _comparison(row: Row, stored: Sequence[Row]) -> str:
    key = ("data", "samples", "noise", "rate", "seed")
    twin = next((other for other in stored if all(other[name] == row[name] for name in key)), None)
    title = ", ".join(str(row[name]) for name in key)
    if twin is None:
        return f"{title}: AUROC {row['auroc_aum']:.4f} now; not in the stored run."
    return (
        f"{title}: AUROC {row['auroc_aum']:.4f} now, {twin['auroc_aum']:.4f} stored; "
        f"accuracy on the cleaned set {row['accuracy_aum']:.4f} now, {twin['accuracy_aum']:.4f} stored."
    )


def classification_figures(checkpoint: Checkpoint, run: Run, dataset: Dataset) -> list[Figure]:
    """Accuracy and cross-entropy of the checkpoint on a labelled data set, matched by class name."""
    network, text = read_networks(checkpoint)
    inputs = dataset_inputs(dataset, checkpoint.config.input, text)
    logits = logits_of(network.to(pick_device(run.device)), inputs)
    return label_figures(logits, dataset, checkpoint.config.class_names)
