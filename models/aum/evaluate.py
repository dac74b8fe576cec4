"""What ``evaluate`` measures: the proof (see :mod:`models.aum.proof`) and the accuracy of a checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch

from models.aum.features import image_tensor, vector_tensor
from models.aum.fit import logits_of
from models.aum.proof import CELLS, Cell, Row, measure_cell
from models.aum.train import read_networks
from models.core.checkpoint import Checkpoint
from models.core.dataset import Dataset
from models.core.devices import pick_device
from models.core.figures import Figure, Figures, measured
from models.core.inputs import ImageSpec
from models.core.method import MethodError
from models.core.parts import measure_parts
from models.core.run import Run
from models.core.sources import load

# The whole proof takes about half an hour on one core; these cells take about two minutes.
QUICK = (Cell("fashion-mnist", "uniform", 0.4, 0), Cell("digits", "flip", 0.2, 0))
WEIGHTS = Path(__file__).parent / "weights"
SHIPPED_SETTING = "clean test set, after training on fashion-mnist, uniform 20%, N=60,000"
_ESTIMATE_TOLERANCE, _MARGIN_OVER_LOSS = 0.06, 0.01
_NAMES = {
    "aum": "method",
    "loss": "final loss",
    "loss_early": "loss, stopped early",
    "confident": "confident learning (cleanlab)",
}
_DETECTION = {"auroc": "AUROC", "ap": "average precision", "f1": "F1 of own flags", "f1_k": "F1 at the true count"}
_FLAGS = {"flagged": "share flagged", "precision": "precision of flags", "recall": "recall of flags"}
_ARMS = {"aum": "method", "all": "all samples", "confident": "confident learning (cleanlab)", "random": "random drop",
         "oracle": "oracle"}  # fmt: skip


def evaluate_method(checkpoint: Checkpoint, run: Run, dataset: Dataset | None) -> Figures:
    """Measure ``checkpoint`` on ``dataset``, or re-measure one seed of the proof beside the stored full one.

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
    rows = measure_cells(QUICK if proof else CELLS, run)
    figures = summarise(proof or rows, remeasured=rows if proof else [])
    kept = [] if stored is None else [f for f in stored.figures if f.setting == SHIPPED_SETTING]
    figures.figures = [*_shipped_accuracy(checkpoint, run, kept), *figures.figures]
    figures.data_sha256 = data_hashes()
    return figures


def measure_cells(cells: Sequence[Cell], run: Run) -> list[Row]:
    """Measure ``cells`` one after the other; finished ones are kept in the run's resume point."""

    def measure(number: int, part: Run) -> Row:
        return measure_cell(cells[number], part, part.progress)

    return measure_parts(run, [f"{cell.setting}, seed {cell.seed}" for cell in cells], measure)


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


def summarise(rows: Sequence[Row], remeasured: Sequence[Row]) -> Figures:
    """Means over seeds of the full proof, its rows, and what holds; ``remeasured`` rows are set beside theirs."""
    figures: list[Figure] = []
    for setting, chosen in _by_setting(rows).items():
        figures += _setting_figures(setting, chosen)
    claims = _claims(rows)
    if remeasured:
        claims.append(
            f"The tables over three seeds are stored from the full run of {len(rows)} cells; "
            f"{len(remeasured)} cells (seed 0) were measured again now."
        )
        claims += [_comparison(row, rows) for row in remeasured]
    tables = {"proof": list(rows)}
    if remeasured:
        tables["measured again"] = list(remeasured)
    return Figures(figures=figures, claims=claims, tables=tables)


def _by_setting(rows: Iterable[Row]) -> dict[str, list[Row]]:
    grouped: dict[str, list[Row]] = {}
    for row in rows:
        title = f"{row['data']}, {row['noise']} {float(row['rate'] or 0):.0%}, N={int(row['samples'] or 0):,}"
        grouped.setdefault(title, []).append(row)
    return grouped


def _values(rows: Iterable[Row], key: str) -> list[float]:
    return [float(row[key] or 0.0) for row in rows]


def _setting_figures(setting: str, rows: list[Row]) -> list[Figure]:
    figures = [
        Figure.over_seeds(
            title,
            _values(rows, f"{key}_{name}"),
            subject=subject,
            setting=setting,
            headline=name == "aum" and key in ("auroc", "f1") and setting.startswith("fashion-mnist, uniform"),
        )
        for key, title in _DETECTION.items()
        for name, subject in _NAMES.items()
        if f"{key}_{name}" in rows[0]
    ]
    for key, title in _FLAGS.items():
        figures += [
            Figure.over_seeds(title, _values(rows, f"{key}_{name}"), subject=_NAMES[name], setting=setting)
            for name in ("aum", "confident")
        ]
    figures += [
        Figure.over_seeds(
            "accuracy after retraining", _values(rows, f"accuracy_{arm}"), subject=subject, setting=setting
        )
        for arm, subject in _ARMS.items()
    ]
    figures.append(Figure.over_seeds("estimated noise rate", _values(rows, "estimate"), setting=setting))
    figures.append(Figure.over_seeds("true noise rate", _values(rows, "true_share"), subject="truth", setting=setting))
    return figures


def _claims(rows: Sequence[Row]) -> list[str]:
    """What was found, setting by setting, and what falls short."""
    claims, short = [], []
    for setting, chosen in _by_setting(rows).items():
        measured = [key for key, value in chosen[0].items() if isinstance(value, float)]
        mean = {key: float(np.mean(_values(chosen, key))) for key in measured}
        claims.append(
            f"{setting}: AUROC {mean['auroc_aum']:.4f} against {mean['auroc_loss_early']:.4f} (loss, stopped early), "
            f"{mean['auroc_loss']:.4f} (final loss) and {mean['auroc_confident']:.4f} (confident learning); F1 of own "
            f"flags {mean['f1_aum']:.3f} against {mean['f1_confident']:.3f} (confident learning). Accuracy after "
            f"training on all samples {mean['accuracy_all']:.3f}, on the cleaned set {mean['accuracy_aum']:.3f}, by "
            f"confident learning {mean['accuracy_confident']:.3f}, after dropping as many at random "
            f"{mean['accuracy_random']:.3f}, without any wrong label {mean['accuracy_oracle']:.3f}."
        )
        if abs(mean["estimate"] - mean["true_share"]) > _ESTIMATE_TOLERANCE:
            short.append(f"{setting}: estimated noise {mean['estimate']:.3f}, true {mean['true_share']:.3f}")
        if mean["f1_aum"] < mean["f1_confident"]:
            short.append(f"{setting}: F1 of own flags below confident learning's")
        if mean["auroc_aum"] - mean["auroc_loss_early"] < _MARGIN_OVER_LOSS:
            short.append(f"{setting}: AUROC less than {_MARGIN_OVER_LOSS} above the loss, stopped early")
    return claims + [f"Falls short. {finding}." for finding in short]


def _comparison(row: Row, stored: Sequence[Row]) -> str:
    key = ("data", "noise", "rate", "seed")
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
    spec = checkpoint.config.input
    if isinstance(spec, ImageSpec):
        inputs = image_tensor(dataset.images(spec))
    elif text is not None:
        inputs = torch.from_numpy(text.vectors(dataset.texts()))
    else:
        inputs = vector_tensor(dataset.vectors(), network.mean.numel())
    positions = {name: index for index, name in enumerate(checkpoint.config.class_names)}
    names = [dataset.class_names[index] for index in dataset.require_labels()]
    unknown = sorted(set(names) - positions.keys())
    if unknown:
        raise MethodError(f"dataset: class {unknown[0]!r} is not one of the checkpoint's")
    labels = np.array([positions[name] for name in names])
    logits = logits_of(network.to(pick_device(run.device)), inputs).double()
    setting = f"{dataset.name or 'data set'}, N={len(labels):,}"
    entropy = -logits.log_softmax(dim=1).numpy()[np.arange(len(labels)), labels]
    return [
        Figure(name="accuracy", value=float((logits.argmax(dim=1).numpy() == labels).mean()), setting=setting),
        Figure(name="cross-entropy", value=float(entropy.mean()), unit="nats", setting=setting),
    ]
