"""What the rows of the proof say: means over seeds, tables, and what held."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from models.core.figures import Figure
from models.core.parts import Row
from models.sam.proof import ARMS, BEST, DOUBLE, EPOCHS, RADII, SGD, setting

MEASURES = {
    "final": "accuracy at the last epoch",
    "best": "accuracy at the best epoch",
    "train": "accuracy on the given training labels",
    "recovered": "wrong labels predicted as their true class",
    "lambda_max": "largest eigenvalue of the Hessian",
    "lambda_5": "fifth eigenvalue of the Hessian",
}
RANDOM, PROOF_NOISE = "random direction, rho 0.2", 0.4
CLASSIFIER_SETTING = "Fashion-MNIST test set, trained on all 60,000 pictures, small convolutional network, 1 seed"
_OVER_SGD, _OVER_DOUBLE, _RANDOM_TOLERANCE, _CLEAN_GAIN = 0.10, 0.12, 0.01, 0.003


def values(rows: Sequence[Row], noise: float, arm: str, measure: str) -> list[float]:
    """One value a seed."""
    chosen = (row[measure] for row in rows if row["noise"] == noise and row["arm"] == arm)
    return [float(value) for value in chosen if value is not None]


def mean(rows: Sequence[Row], noise: float, arm: str, measure: str) -> float:
    """Over the seeds; NaN where nothing was measured."""
    found = values(rows, noise, arm, measure)
    return float(np.mean(found)) if found else float("nan")


def proof_figures(rows: Sequence[Row]) -> list[Figure]:
    """Mean and spread of every measure of every arm; the method is SAM with radius 0.2."""
    figures = []
    for noise in sorted({float(row["noise"] or 0) for row in rows}):
        for arm in ARMS:
            for measure, name in MEASURES.items():
                found = values(rows, noise, arm, measure)
                if found:
                    subject = "method" if arm == BEST else arm
                    headline = subject == "method" and noise == PROOF_NOISE and measure in ("final", "lambda_max")
                    figures.append(
                        Figure.over_seeds(name, found, subject=subject, setting=setting(noise), headline=headline)
                    )
    return figures


def proof_table(rows: Sequence[Row], noise: float) -> list[Row]:
    """A row an arm: means over the seeds and the spread of the final accuracy."""
    table: list[Row] = []
    for arm in ARMS:
        found = values(rows, noise, arm, "final")
        if found:
            spread = float(np.std(found, ddof=1)) if len(found) > 1 else None
            means: Row = {measure: mean(rows, noise, arm, measure) for measure in MEASURES}
            if noise == 0:
                means["recovered"] = None
            table.append({"arm": arm, "seeds": len(found), "final_spread": spread, **means})
    return table


def proof_claims(rows: Sequence[Row]) -> list[str]:
    """What held of the paper's statements on label noise and sharpness, with the numbers."""
    final = {arm: mean(rows, PROOF_NOISE, arm, "final") for arm in ARMS}
    best = {arm: mean(rows, PROOF_NOISE, arm, "best") for arm in ARMS}
    gains = {arm: final[BEST] - final[arm] for arm in (SGD, DOUBLE)}
    held = gains[SGD] >= _OVER_SGD and gains[DOUBLE] >= _OVER_DOUBLE
    sharpness = [mean(rows, PROOF_NOISE, arm, "lambda_max") for arm in (SGD, *(f"SAM, rho {r:g}" for r in RADII))]
    falling = all(a > b for a, b in pairwise(sharpness))
    apart = abs(final[RANDOM] - final[SGD])
    return [
        f"{setting(PROOF_NOISE)}: SAM with rho 0.2 ends at {final[BEST]:.3f}, SGD at {final[SGD]:.3f}, SGD with the "
        f"same compute ({2 * EPOCHS} epochs) at {final[DOUBLE]:.3f}: {100 * gains[SGD]:.1f} and "
        f"{100 * gains[DOUBLE]:.1f} points{'' if held else ', less than the 10 and 12 that were expected'}.",
        f"At its best epoch, which only clean test labels can tell, SGD has {best[SGD]:.3f} and SAM {best[BEST]:.3f}: "
        "most of the gain is that wrong labels are not memorised, which early stopping gives as well.",
        f"The largest eigenvalue {'falls' if falling else 'does not fall'} monotonically over rho 0, "
        f"{', '.join(f'{r:g}' for r in RADII)}: {', '.join(f'{value:.2f}' for value in sharpness)}.",
        f"A random perturbation of length 0.2 ends {100 * apart:.1f} points from SGD"
        f"{'' if apart <= _RANDOM_TOLERANCE else ', more than the 1 point that was expected'}.",
    ]


def classifier_claims(table: Sequence[Row]) -> list[str]:
    """What the shipped classifiers say of clean labels."""
    sam, sgd, double = (float(row["accuracy"] or 0) for row in table)
    reached = sam - double >= _CLEAN_GAIN
    return [
        f"Clean labels, {table[0]['epochs']} epochs of SAM: {sam:.4f}; SGD {sgd:.4f}; SGD with the same compute "
        f"({table[2]['epochs']} epochs) {double:.4f}. The gain over the latter is {100 * (sam - double):+.2f} points "
        f"of one seed{'' if reached else ', less than the 0.3 that were hoped for'}."
    ]


def classifier_figures(table: Sequence[Row]) -> list[Figure]:
    """Accuracy and sharpness of the shipped classifiers."""
    names = {"accuracy": "accuracy", "lambda_max": MEASURES["lambda_max"]}
    return [
        Figure(
            name=name,
            value=float(row[measure] or 0),
            subject=str(row["subject"]),
            setting=CLASSIFIER_SETTING,
            headline=measure == "accuracy" and row["subject"] == "method",
        )
        for measure, name in names.items()
        for row in table
    ]
