"""The figures of the card: alignment, drift, approximation and transfer, each beside its baseline.

The errors after pretraining are read from ``weights/transfer.json``, which ``python -m models.otdd.transfer_proof``
writes; the distances that are to predict them are measured anew.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from models.core import sources
from models.core.checkpoint import Checkpoint
from models.core.dataset import Dataset
from models.core.figures import Figure, Figures
from models.core.method import MethodError
from models.core.run import Run
from models.otdd import proofs
from models.otdd.pictures import drift_picture, transfer_picture
from models.otdd.transfer_proof import SEEDS as TRANSFER_SEEDS
from models.otdd.transfer_proof import SHOTS, transfer_distances
from models.otdd.variants import relabelled

SEEDS, SIZE, ALIGNED, TABLE_SIZE = 3, 400, 800, 5000
TRANSFER = Path(__file__).parent / "weights" / "transfer.json"
W2 = "label-agnostic W2"


def evaluate(checkpoint: Checkpoint, run: Run, dataset: Dataset | None = None) -> Figures:
    """Measure the distance on digits and Fashion-MNIST, or the drift of the user's own data under wrong labels.

    Raises:
        MethodError: the user's data set is no labelled set of pictures of at least 40 samples.
    """
    began = time.perf_counter()
    if dataset is not None:
        return _on_users_data(run, dataset, began)
    figures: list[Figure] = []
    claims: list[str] = []
    steps, done = 2 * SEEDS + 21 + 1, 0

    def tick() -> None:
        nonlocal done
        done += 1
        run.progress(done / steps, "evaluating")

    seeds = range(run.seed, run.seed + SEEDS)
    _alignment([proofs.alignment(ALIGNED, seed) for seed in seeds], figures, claims)
    for _ in seeds:
        tick()
    curves = [(proofs.rotation_drift(SIZE, seed), proofs.noise_drift(SIZE, seed)) for seed in seeds]
    _drift(curves, [proofs.debiased_noise(SIZE, seed) for seed in seeds], figures, claims)
    for _ in seeds:
        tick()
    drift_picture(curves[0], run.artifact("drift.png", "image/png"))
    _approximation(proofs.approximation(SIZE // 2, run.seed, tick), run.seed, figures, claims)
    rows = _transfer_rows(run.seed)
    _transfer(rows, figures, claims)
    transfer_picture(rows, run.artifact("transfer.png", "image/png"))
    tick()
    used = ("digits", "all"), ("fashion-mnist", "train"), ("fashion-mnist", "test"), ("digits-8x8", "all")
    return Figures(
        figures=figures,
        claims=claims,
        tables={"transfer": rows},
        data_sha256={f"{name}/{split}": sources.load(name, split).sha256 for name, split in used},
        command="deepnight evaluate otdd",
        seconds=time.perf_counter() - began,
    )


def _alignment(found: list[dict[str, float]], figures: list[Figure], claims: list[str]) -> None:
    setting = f"MNIST digits against 8x8 digits, n={ALIGNED}"
    names = [name for name in found[0] if name.startswith("classes aligned")]
    figures += [Figure.over_seeds(name, [f[name] for f in found], unit="of 10", setting=setting) for name in names]
    mass = [f["mass on the diagonal"] for f in found]
    plain = [f["mass on the diagonal, label-agnostic"] for f in found]
    figures.append(Figure.over_seeds("mass on the diagonal", mass, setting=setting, headline=True))
    figures.append(Figure.over_seeds("mass on the diagonal", plain, setting=setting, subject=W2))
    table, matched, coupled = (float(np.mean([f[name] for f in found])) for name in names)
    claims.append(
        f"Without their names, the coupling matches {coupled:.1f} of 10 digits between two collections and puts "
        f"{np.mean(mass):.0%} of its mass on equal digits (label-agnostic {np.mean(plain):.0%}); the target of 60% is "
        f"{'met' if np.mean(mass) >= 0.6 else 'missed'}. The nearest class by label distance alone is right for "
        f"{table:.1f} of 10 (target 8: {'met' if table >= 8 else 'missed'}), for a few digits of one collection are "
        f"the nearest of several of the other; the best one-to-one matching of the same table is right for "
        f"{matched:.1f}."
    )


Curve = dict[float, tuple[float, float]]


def _drift(curves: list[tuple[Curve, Curve]], debiased: list[Curve], figures: list[Figure], claims: list[str]) -> None:
    share = proofs.NOISES[-1]
    setting = f"digits, {share:.0%} wrong labels against none"
    for subject, which in (("method", 0), (W2, 1)):
        ratios = [noise[share][which] / noise[0.0][which] for _, noise in curves]
        headline = subject == "method"
        figures.append(Figure.over_seeds("drift ratio", ratios, setting=setting, subject=subject, headline=headline))
        for angle in proofs.ANGLES[1:]:
            turned = [turn[angle][which] / turn[0][which] for turn, _ in curves]
            figures.append(
                Figure.over_seeds("drift ratio", turned, setting=f"digits, rotated {angle}", subject=subject)
            )
        ratios = [curve[share][which] / curve[0.0][which] for curve in debiased]
        where = f"{setting}, divergence with epsilon {proofs.WIDE}"
        figures.append(Figure.over_seeds("drift ratio", ratios, setting=where, subject=subject))
    rising = all(np.all(np.diff([curve[step][0] for step in sorted(curve)]) > 0) for pair in curves for curve in pair)
    wide, plain_wide = (float(np.mean([curve[share][i] / curve[0.0][i] for curve in debiased])) for i in (0, 1))
    ours = float(np.mean([noise[share][0] / noise[0.0][0] for _, noise in curves]))
    plain = float(np.mean([noise[share][1] / noise[0.0][1] for _, noise in curves]))
    claims.append(
        f"The distance {'grows' if rising else 'does not always grow'} with rotation and with the share of wrong "
        f"labels; {share:.0%} wrong labels raise it {ours:.3f}-fold (target 1.2: {'met' if ours >= 1.2 else 'missed'}) "
        f"and label-agnostic W2 {plain:.3f}-fold, which cannot see them. Exact transport "
        "between two samples of different digits is most of either value; the divergence takes this floor off: with "
        f"epsilon {proofs.WIDE} it is {wide:.3f}-fold ({'met' if wide >= 1.2 else 'missed'}; label-agnostic "
        f"{plain_wide:.3f}-fold)."
    )


def _approximation(found: dict[str, list[float]], seed: int, figures: list[Figure], claims: list[str]) -> None:
    correlation = float(np.corrcoef(found["gaussian"], found["exact"])[0, 1])
    below = float(np.max(np.array(found["gaussian"]) / np.array(found["exact"])))
    gaussian, exact = proofs.label_table_seconds(TABLE_SIZE, seed)
    setting = f"{len(found['exact'])} pairs of data sets, n={SIZE // 2}"
    figures += [
        Figure(name="Pearson, Gaussian with exact label distances", value=correlation, setting=setting),
        Figure(name="largest Gaussian / exact value", value=below, setting=setting),
        Figure(
            name="CPU seconds of the exact over the Gaussian label table",
            value=exact / gaussian,
            setting=f"digits against Fashion-MNIST, n={TABLE_SIZE}",
        ),
    ]
    claims.append(
        f"Gaussian label distances give distances that correlate by {correlation:.3f} with exact ones (target .95: "
        f"{'met' if correlation >= 0.95 else 'missed'}). At n={TABLE_SIZE} their table takes 1/{exact / gaussian:.1f} "
        f"of the CPU time (target 1/10: {'met' if exact / gaussian >= 10 else 'missed'}); for small classes exact ones "
        "are the faster."
    )


def _transfer_rows(seed: int) -> list[dict[str, Any]]:
    stored = json.loads(TRANSFER.read_text(encoding="utf-8"))
    distances = transfer_distances(seed)
    scratch = {(row["seed"], row["target"]): row["error"] for row in stored if row["source"] == "none"}
    rows: list[dict[str, Any]] = []
    for (source, target), (ours, plain) in distances.items():
        errors = [(row["seed"], row["error"]) for row in stored if (row["source"], row["target"]) == (source, target)]
        gain = float(np.mean([1.0 - error / scratch[seed, target] for seed, error in errors]))
        rows.append({"source": source, "target": target, "gain": gain, "otdd": ours, "w2": plain})
    return rows


def _transfer(rows: list[dict[str, Any]], figures: list[Figure], claims: list[str]) -> None:
    gains = [row["gain"] for row in rows]
    setting = f"{len(rows)} pairs, {SHOTS} shots, {TRANSFER_SEEDS} seeds"
    found = {}
    for subject, column in (("method", "otdd"), (W2, "w2")):
        found[column] = _spearman([row[column] for row in rows], gains)
        rho = found[column][0]
        headline = subject == "method"
        figures.append(
            Figure(name="Spearman with transfer gain", value=rho, setting=setting, subject=subject, headline=headline)
        )
    (rho, low, high), plain_rho = found["otdd"], found["w2"][0]
    kept = [row for row in rows if "inverted" not in row["source"]]
    inner = _spearman([row["otdd"] for row in kept], [row["gain"] for row in kept])[0]
    setting = f"{len(kept)} pairs without inverted pictures, {SHOTS} shots, {TRANSFER_SEEDS} seeds"
    figures.append(Figure(name="Spearman with transfer gain", value=inner, setting=setting))
    claims.append(
        f"The relative drop of the target's error after pretraining has Spearman {rho:.2f} with the distance (95% "
        f"bootstrap over pairs {low:.2f} to {high:.2f}; target -.6 or stronger and an interval without 0: "
        f"{'met' if rho <= -0.6 and high < 0 else 'missed'}), label-agnostic W2 {plain_rho:.2f}. The exception are "
        "sources with black and white exchanged, by far the farthest in pixels and not the worst to learn from: over "
        f"the {len(kept)} other pairs it is {inner:.2f}."
    )


def _spearman(values: list[float], gains: list[float]) -> tuple[float, float, float]:
    """Spearman's rho with its 95% bootstrap interval over pairs."""
    pairs, rng = np.array([values, gains]), np.random.default_rng(0)
    drawn = [pairs[:, rng.integers(0, len(gains), len(gains))] for _ in range(2000)]
    rhos = [stats.spearmanr(*sample).statistic for sample in drawn]
    low, high = np.nanpercentile(rhos, [2.5, 97.5])
    return float(stats.spearmanr(*pairs).statistic), float(low), float(high)


def _on_users_data(run: Run, dataset: Dataset, began: float) -> Figures:
    if dataset.kind != "images" or dataset.labels is None or len(dataset) < 40:
        raise MethodError("evaluate needs a labelled data set of at least 40 pictures")
    rows = np.random.default_rng(run.seed).permutation(len(dataset))[: 2 * SIZE]
    half = len(rows) // 2
    base, other = dataset.select(rows[:half]), dataset.select(rows[half:])
    figures = []
    for share in proofs.NOISES:
        ours, plain = proofs.both(base, relabelled(other, share, run.seed))
        setting = f"halves of the data set, {share:.0%} wrong labels in one"
        figures += [
            Figure(name="distance", value=ours, setting=setting, headline=share == 0.0),
            Figure(name="distance", value=plain, setting=setting, subject=W2),
        ]
    return Figures(
        figures=figures,
        claims=["The distance between two halves of one data set is its floor; wrong labels lift it."],
        data_sha256={dataset.name or "data set": dataset.sha256},
        command="deepnight evaluate otdd",
        seconds=time.perf_counter() - began,
    )
