"""What the rows of the proof say: means over seeds, tables, and what held."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from models.core.figures import Figure
from models.core.parts import Row
from models.sam.proof import ARMS, BEST, DOUBLE, EPOCHS, RADII, RANDOM, SGD, setting
from models.sam.trainers import TRAINERS

MEASURES = {
    "final": "accuracy at the last epoch",
    "best": "accuracy at the best epoch",
    "train": "accuracy on the given training labels",
    "recovered": "wrong labels predicted as their true class",
    "lambda_max": "largest eigenvalue of the Hessian",
    "lambda_5": "fifth eigenvalue of the Hessian",
}
PROOF_NOISE = 0.4
_OVER_SGD, _OVER_DOUBLE, _RANDOM_TOLERANCE, _CLEAN_GAIN, _CLEAN_LOSS = 0.10, 0.12, 0.01, 0.003, 0.001


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
    claims = [_noise_claim(rows, noise) for noise in sorted({float(row["noise"] or 0) for row in rows})]
    final = {arm: mean(rows, PROOF_NOISE, arm, "final") for arm in ARMS}
    best = {arm: mean(rows, PROOF_NOISE, arm, "best") for arm in ARMS}
    radii = [SGD, *(f"SAM, rho {r:g}" for r in RADII)]
    sharpness = [mean(rows, PROOF_NOISE, arm, "lambda_max") for arm in radii]
    falling = all(a > b for a, b in pairwise(sharpness))
    ratios = [largest / mean(rows, PROOF_NOISE, arm, "lambda_5") for arm, largest in zip(radii, sharpness, strict=True)]
    shared = {row["seed"] for row in rows if (row["arm"], row["noise"]) == (RANDOM, PROOF_NOISE)}
    paired = [row for row in rows if row["seed"] in shared]
    apart = abs(final[RANDOM] - mean(paired, PROOF_NOISE, SGD, "final"))
    others = {arm: final[arm] for arm in ARMS if arm not in (*radii, DOUBLE, RANDOM) and not np.isnan(final[arm])}
    claims += [
        f"At its best epoch, which only clean test labels can tell, SGD has {best[SGD]:.3f} and SAM {best[BEST]:.3f} "
        f"({setting(PROOF_NOISE)}): most of the gain is that wrong labels are not memorised, which early stopping "
        "gives as well.",
        f"The largest eigenvalue {'falls' if falling else 'does not fall'} monotonically over rho 0, "
        f"{', '.join(f'{r:g}' for r in RADII)}: {', '.join(f'{value:.2f}' for value in sharpness)}; its ratio to the "
        f"fifth is {', '.join(f'{ratio:.2f}' for ratio in ratios)}.",
        f"A random perturbation of length 0.2 ends {100 * apart:.1f} points from SGD"
        f"{'' if apart <= _RANDOM_TOLERANCE else ', more than the 1 point that was expected'}.",
    ]
    if others:
        counts = {arm: len(values(rows, PROOF_NOISE, arm, "final")) for arm in others}
        listed = ", ".join(f"{arm} {value:.3f} ({_seeds(counts[arm])})" for arm, value in others.items())
        claims.append(f"Beside SAM with rho 0.2 ({final[BEST]:.3f}) and SGD ({final[SGD]:.3f}) end: {listed}.")
    return claims


def _seeds(count: int) -> str:
    return f"{count} seed{'s' if count > 1 else ''}"


def _noise_claim(rows: Sequence[Row], noise: float) -> str:
    final = {arm: mean(rows, noise, arm, "final") for arm in (SGD, DOUBLE, BEST)}
    gains = {arm: final[BEST] - final[arm] for arm in (SGD, DOUBLE)}
    held = noise != PROOF_NOISE or (gains[SGD] >= _OVER_SGD and gains[DOUBLE] >= _OVER_DOUBLE)
    seeds = _seeds(len(values(rows, noise, BEST, "final")))
    return (
        f"{setting(noise)}, {seeds}: SAM with rho 0.2 ends at {final[BEST]:.3f}, SGD at {final[SGD]:.3f}, SGD with the "
        f"same compute ({2 * EPOCHS} epochs) at {final[DOUBLE]:.3f}: {100 * gains[SGD]:+.1f} and "
        f"{100 * gains[DOUBLE]:+.1f} points{'' if held else ', less than the 10 and 12 that were expected'}."
    )


def _networks(table: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    """The setting in words and the rows of every network that was trained."""
    names = list(dict.fromkeys(str(row["network"]) for row in table))
    where = "Fashion-MNIST test set, trained on all 60,000 pictures"
    return [(f"{where}, {name}", [row for row in table if row["network"] == name]) for name in names]


def _by_subject(table: Sequence[Row], measure: str) -> dict[str, list[float]]:
    """One value a seed of every classifier, by subject."""
    found: dict[str, list[float]] = {}
    for row in table:
        found.setdefault(str(row["subject"]), []).append(float(row[measure] or 0))
    return found


def classifier_claims(table: Sequence[Row]) -> list[str]:
    """What the trained classifiers say of clean labels, a sentence a network."""
    return [_clean_claim(where, rows) for where, rows in _networks(table)]


def _clean_claim(where: str, rows: Sequence[Row]) -> str:
    found = _by_subject(rows, "accuracy")
    epochs = {str(row["subject"]): row["epochs"] for row in rows}
    sam, sgd, double = "method", "SGD (sam@sgd)", "SGD, twice the epochs"
    gain = float(np.mean(found[sam]) - np.mean(found[double]))
    verdict = ""
    if gain < -_CLEAN_LOSS:
        verdict = ", where it should cost no more than 0.1"
    elif gain < _CLEAN_GAIN:
        verdict = ", less than the 0.3 that were hoped for"
    return (
        f"Clean labels, {where}, {_seeds(len(found[sam]))}: {epochs[sam]} epochs of SAM "
        f"{np.mean(found[sam]):.4f}; SGD {np.mean(found[sgd]):.4f}; SGD with the same compute "
        f"({epochs[double]} epochs) {np.mean(found[double]):.4f}. The gain over the latter is {100 * gain:+.2f} "
        f"points{verdict}."
    )


def classifier_figures(table: Sequence[Row]) -> list[Figure]:
    """Accuracy and sharpness of the trained classifiers."""
    names = {"accuracy": "accuracy", "lambda_max": MEASURES["lambda_max"]}
    return [
        Figure.over_seeds(
            name, found, subject=subject, setting=where, headline=measure == "accuracy" and subject == "method"
        )
        for where, rows in _networks(table)
        for measure, name in names.items()
        for subject, found in _by_subject(rows, measure).items()
    ]


def _trainer_values(rows: Sequence[Row], slug: str) -> dict[float, list[float]]:
    found: dict[float, list[float]] = {}
    for row in rows:
        if row["trainer"] == slug:
            found.setdefault(float(row["rho"] or 0), []).append(float(row["value"] or 0))
    return found


def trainer_figures(rows: Sequence[Row]) -> list[Figure]:
    """What two other methods' trainings give with and without SAM."""
    return [
        Figure.over_seeds(
            trainer.name, found, subject=f"{slug}, {f'SAM, rho {rho:g}' if rho else 'without SAM'}",
            setting=trainer.setting,
        )
        for slug, trainer in TRAINERS.items()
        for rho, found in _trainer_values(rows, slug).items()
    ]  # fmt: skip


def trainer_claims(rows: Sequence[Row]) -> list[str]:
    """One sentence a trainer."""
    claims = []
    for slug, trainer in TRAINERS.items():
        found = _trainer_values(rows, slug)
        if found:
            listed = ", ".join(
                f"{f'SAM with rho {rho:g}' if rho else 'without'} {np.mean(v):.4f}" for rho, v in found.items()
            )
            seeds = _seeds(len(next(iter(found.values()))))
            claims.append(f"The trainer of {slug} ({trainer.setting}, {seeds}), {trainer.name}: {listed}.")
    return claims


def timing_claims(rows: Sequence[Row]) -> list[str]:
    """What a step costs."""
    return [
        f"A step of SAM takes {float(row['ratio'] or 0):.2f} times one of SGD ({row['network']}, {row['device']}: "
        f"{float(row['sam_ms'] or 0):.2f} and {float(row['sgd_ms'] or 0):.2f} ms)."
        for row in rows
    ]
