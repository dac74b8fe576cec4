"""What the rows of the proof say: means over seeds and what held."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from models.core.figures import Figure
from models.core.parts import Row
from models.early_stopping.proof import EPOCHS, EPSILONS, LAW, THEORY_STEPS, TITLES, setting, slopes

SUBJECTS = {
    "stopped": "method",
    "last": f"all {EPOCHS} epochs",
    "best": "best epoch on the test set",
    "patient": f"best held-out epoch of all {EPOCHS}",
    "one_error": f"first within a standard error of the best held-out epoch of all {EPOCHS}",
    "all_stopped": "as many epochs on all samples",
    "all_patient": f"as many epochs on all samples as the best held-out one of all {EPOCHS}",
    "all_last": f"all {EPOCHS} epochs on all samples",
}
GAINS = {0.2: 0.06, 0.4: 0.15, 0.6: 0.20}
REGRETS = {0.2: 0.02, 0.4: 0.02, 0.6: 0.05}
_CLEAN_COST, _HEADLINE = 0.01, ("fashion-mnist", 0.4)


def values(rows: Sequence[Row], data: str, noise: float, name: str) -> list[float]:
    """One value a seed."""
    mine = (row for row in rows if row["data"] == data and row["noise"] == noise)
    return [float(row[name] or 0) for row in mine if row[name] is not None]


def settings(rows: Sequence[Row]) -> list[tuple[str, float]]:
    """The data sets and shares of wrong labels that were measured."""
    found = {(str(row["data"]), float(row["noise"] or 0)) for row in rows}
    return sorted(found, key=lambda pair: (list(TITLES).index(pair[0]), pair[1]))


def proof_figures(rows: Sequence[Row]) -> list[Figure]:
    """Accuracy on clean test samples, what wrong labels were fitted, and the distance, by data and noise."""
    figures = []
    for data, noise in settings(rows):
        where = setting(data, noise)
        for name, subject in SUBJECTS.items():
            headline = name == "stopped" and (data, noise) == _HEADLINE
            found = values(rows, data, noise, name)
            if found:
                figures.append(Figure.over_seeds("accuracy", found, subject=subject, setting=where, headline=headline))
        measures = {"relative_distance": "relative distance"}
        if noise:
            measures["fit_corrupt"] = "wrong labels fitted"
        for measure, title in measures.items():
            for name in ("stopped", "last"):
                found = values(rows, data, noise, f"{measure}_{name}")
                figures.append(Figure.over_seeds(title, found, subject=SUBJECTS[name], setting=where))
    return figures


def proof_claims(rows: Sequence[Row]) -> list[str]:
    """What held of the expected gains, with the numbers."""
    claims = []
    for data, noise in settings(rows):
        every = {name: values(rows, data, noise, name) for name in SUBJECTS}
        mean = {name: float(np.mean(found)) for name, found in every.items() if found}
        seeds = len(every["stopped"])
        text = (
            f"{setting(data, noise)}, {seeds} seed{'s' if seeds > 1 else ''}: stopped {mean['stopped']:.3f}, after "
            f"{EPOCHS} epochs {mean['last']:.3f}, best epoch on the test set {mean['best']:.3f}; the best held-out "
            f"epoch of all, without patience, {mean['patient']:.3f}, the first within a standard error of it "
            f"{mean['one_error']:.3f}"
        )
        if "all_last" in mean:
            text += (
                f"; on all samples, the held-out ones too, {mean['all_stopped']:.3f} after as many epochs and "
                f"{mean['all_last']:.3f} after {EPOCHS}"
            )
        short = []
        if noise and mean["stopped"] - mean["last"] < GAINS[noise]:
            short.append(f"the gain is less than the {100 * GAINS[noise]:.0f} points that were expected")
        if noise and mean["best"] - mean["stopped"] > REGRETS[noise]:
            short.append(f"more than {100 * REGRETS[noise]:.0f} points below the best epoch")
        if not noise and mean["last"] - mean["stopped"] > _CLEAN_COST:
            short.append("stopping costs more than a point on clean labels")
        claims.append(f"{text}{'; falls short: ' if short else ''}{' and '.join(short)}.")
    return claims


def _worst_best(rows: Sequence[Row]) -> float:
    """The accuracy at the best step of the seed where it is least."""
    seeds = {row["seed"] for row in rows}
    return min(max(float(row["accuracy"] or 0) for row in rows if row["seed"] == seed) for seed in seeds)


def theory_claims(theory: Sequence[Row], law: Sequence[Row]) -> list[str]:
    """What held of the two theorems on clustered data."""
    claims = []
    for eps in EPSILONS:
        mine = [row for row in theory if row["eps"] == eps]
        means = {
            name: [
                float(np.mean([float(row[name] or 0) for row in mine if row["step"] == step])) for step in THEORY_STEPS
            ]
            for name in ("accuracy", "corrupt_fitted")
        }
        at = int(np.argmax(means["accuracy"]))
        seeds = len({row["seed"] for row in mine})
        claims.append(
            f"Clusters of radius {eps:g}, a fifth of the labels wrong, {seeds} seed{'s' if seeds > 1 else ''}: at step "
            f"{THEORY_STEPS[at]} of gradient descent {means['accuracy'][at]:.3f} of all points have their true label "
            f"and {means['corrupt_fitted'][at]:.3f} of the wrong labels are fitted; at step {THEORY_STEPS[-1]} "
            f"{means['accuracy'][-1]:.3f} and {means['corrupt_fitted'][-1]:.3f}. No seed's best step is below "
            f"{_worst_best(mine):.3f}."
        )
    found = slopes(list(law))
    held = -1.1 <= found["distance_corrupt"] <= -0.9 and abs(found["distance_true"]) < 0.2
    claims.append(
        f"The distance to fit the labels goes with the clusters' radius ({LAW[0]:g} to {LAW[-1]:g}) to the power "
        f"{found['distance_corrupt']:.2f} where some are wrong, {found['distance_true']:.2f} where none is"
        f"{'' if held else '; expected were -1 and 0, within 0.1 and 0.2'}."
    )
    return claims
