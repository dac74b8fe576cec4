"""What the rows of the proof say: figures a setting, and claims with what falls short."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from models.core.figures import Figure, Figures
from models.core.parts import Row

_TOLERANCE, _MARGIN_OVER_LOSS = 0.06, 0.01
_GAIN, _ORACLE_SHARE = {0.2: 0.04, 0.4: 0.08}, 0.8
_AUROC = {("uniform", 0.2): 0.98, ("uniform", 0.4): 0.98, ("flip", 0.2): 0.95}
_NAMES = {
    "aum": "method",
    "probability": "mean probability",
    "loss": "final loss",
    "loss_early": "loss, stopped early",
    "confident": "confident learning (cleanlab)",
    "mixture": "mixture on AUM",
}
_DETECTION = {
    "auroc": "AUROC", "ap": "average precision", "f1": "F1 of own flags", "f1_k": "F1 at the true count",
    "flagged": "share flagged", "precision": "precision of flags", "recall": "recall of flags",
}  # fmt: skip
_HEADLINES = ("fashion-mnist, uniform 20%, N=8,000", "fashion-mnist, uniform 40%, N=8,000")
_ARMS = {"aum": "method", "all": "all samples", "confident": "confident learning (cleanlab)", "random": "random drop",
         "oracle": "oracle"}  # fmt: skip
_ESTIMATES = {"estimate": "method", "estimate_mixture": "mixture on AUM",
              "estimate_loss_mixture": "mixture on the loss, stopped early",
              "flagged_confident": "confident learning (cleanlab)", "true_share": "truth"}  # fmt: skip


def summarise(rows: Sequence[Row]) -> Figures:
    """Means over seeds of the proof, its rows, and what holds."""
    figures: list[Figure] = []
    claims: list[str] = []
    short: list[str] = []
    for setting, chosen in by_setting(rows).items():
        figures += _setting_figures(setting, chosen)
        mean = means(chosen)
        claims.append(_found(setting, mean, len(chosen)))
        short += [f"Falls short. {setting}: {finding}." for finding in _missed(str(chosen[0]["noise"]), mean)]
    claims.append(_coverage(rows))
    claims += [f"Measured on {', '.join(sorted({str(row['device']) for row in rows}))}.", *short]
    return Figures(figures=figures, claims=claims, tables={"proof": list(rows)})


def by_setting(rows: Iterable[Row]) -> dict[str, list[Row]]:
    """The rows of each setting, one a seed."""
    grouped: dict[str, list[Row]] = {}
    for row in rows:
        noise = "no added noise" if row["noise"] == "none" else f"{row['noise']} {float(row['rate'] or 0):.0%}"
        grouped.setdefault(f"{row['data']}, {noise}, N={int(row['samples'] or 0):,}", []).append(row)
    return grouped


def means(rows: Sequence[Row]) -> dict[str, float]:
    """Means over seeds of all that was measured."""
    return {key: float(np.mean(_values(rows, key))) for key, value in rows[0].items() if isinstance(value, float)}


def _values(rows: Iterable[Row], key: str) -> list[float]:
    return [float(row[key] or 0.0) for row in rows]


def _setting_figures(setting: str, rows: list[Row]) -> list[Figure]:
    named = [(title, f"{key}_{name}", subject) for key, title in _DETECTION.items() for name, subject in _NAMES.items()]
    named += [("accuracy after retraining", f"accuracy_{arm}", subject) for arm, subject in _ARMS.items()]
    named += [("noise rate", key, subject) for key, subject in _ESTIMATES.items()]
    headlines = ("auroc_aum", "f1_aum") if setting in _HEADLINES else ()
    return [
        Figure.over_seeds(title, _values(rows, key), subject=subject, setting=setting, headline=key in headlines)
        for title, key, subject in named
        if key in rows[0]
    ]


def _found(setting: str, mean: dict[str, float], seeds: int) -> str:
    """What was measured of a setting, in a sentence a subject."""
    found = f"{setting} ({seeds} {'seed' if seeds == 1 else 'seeds'}): "
    if "auroc_aum" in mean:
        found += f"AUROC {mean['auroc_aum']:.4f} against {_listed(mean, 'auroc', _NAMES, '.4f')}; "
        found += f"flags: precision {mean['precision_aum']:.3f}, recall {mean['recall_aum']:.3f}, "
        found += f"F1 {mean['f1_aum']:.3f} against {_listed(mean, 'f1', _NAMES)}. "
    found += f"{mean['flagged_aum']:.3f} flagged; noise {mean['true_share']:.3f}, estimated {mean['estimate']:.3f}"
    others = [f"{mean[key]:.3f} ({subject})" for key, subject in _ESTIMATES.items() if key in mean][1:-1]
    found += f" against {', '.join(others)}."
    if "accuracy_aum" in mean:
        found += f" Accuracy after training on the cleaned set {mean['accuracy_aum']:.3f} against "
        found += f"{_listed(mean, 'accuracy', _ARMS)}."
    return found


def _listed(mean: dict[str, float], key: str, names: dict[str, str], spec: str = ".3f") -> str:
    """What the others reach, as far as it was measured."""
    measured = {name: f"{key}_{name}" for name in names if name != "aum" and f"{key}_{name}" in mean}
    return ", ".join(f"{mean[column]:{spec}} ({names[name]})" for name, column in measured.items())


def _missed(noise: str, mean: dict[str, float]) -> list[str]:
    """Targets that a setting misses."""
    missed = []
    if abs(mean["estimate"] - mean["true_share"]) > _TOLERANCE:
        missed.append(f"the estimated noise is {mean['estimate']:.3f}, the true one {mean['true_share']:.3f}")
    if noise == "none":
        return missed
    rate = round(mean["rate"], 2)
    if mean["auroc_aum"] < _AUROC.get((noise, rate), 0.0):
        missed.append(f"AUROC {mean['auroc_aum']:.4f}, below {_AUROC[noise, rate]}")
    better = [name for name in _NAMES if mean.get(f"auroc_{name}", 0) > mean["auroc_aum"]]
    missed += [f"AUROC {mean['auroc_aum']:.4f}, {mean[f'auroc_{name}']:.4f} by {_NAMES[name]}" for name in better]
    if mean["auroc_aum"] - mean["auroc_loss"] < _MARGIN_OVER_LOSS:
        missed.append(f"AUROC less than {_MARGIN_OVER_LOSS} above the final loss's")
    better = [name for name in _NAMES if mean.get(f"f1_{name}", 0) > mean["f1_aum"]]
    missed += [f"F1 of own flags {mean['f1_aum']:.3f}, {mean[f'f1_{name}']:.3f} by {_NAMES[name]}" for name in better]
    return missed + (_missed_gains(rate, mean) if "accuracy_aum" in mean else [])


def _missed_gains(rate: float, mean: dict[str, float]) -> list[str]:
    missed, gain = [], mean["accuracy_aum"] - mean["accuracy_all"]
    if gain < _GAIN.get(rate, 0.0):
        missed.append(f"cleaning gains {100 * gain:.1f} points of accuracy, less than {100 * _GAIN.get(rate, 0.0):.0f}")
    possible = mean["accuracy_oracle"] - mean["accuracy_all"]
    if rate == 0.4 and gain < _ORACLE_SHARE * possible:
        missed.append(f"cleaning gains {gain / possible:.0%} of what removing all wrong labels gains")
    return missed


def _coverage(rows: Sequence[Row]) -> str:
    """How often the noise estimate is close, and how often its interval holds the true share."""
    parts = []
    for noise in dict.fromkeys(str(row["noise"]) for row in rows):
        chosen = [row for row in rows if row["noise"] == noise]
        truth, estimate, low, high = (
            np.array(_values(chosen, key)) for key in ("true_share", "estimate", "low", "high")
        )
        close, inside = np.abs(estimate - truth) <= _TOLERANCE, (low <= truth) & (truth <= high)
        title = "no added noise" if noise == "none" else f"{noise} noise"
        parts.append(f"{title}: within {_TOLERANCE} in {close.sum()} of {len(chosen)} cells, inside in {inside.sum()}")
    return f"Noise estimate and its interval against the true share. {'; '.join(parts)}."
