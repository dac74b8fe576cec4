"""From measured rows to figures, tables and plain sentences about what held and what did not."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import numpy as np

from models.align_uniform.proof import Row
from models.core.figures import Figure

Table = list[dict[str, float | int | str | None]]

MEASURES = {
    "linear": "linear probe accuracy",
    "knn": "k-NN accuracy (k=20)",
    "low1": "linear probe accuracy, 1% of the labels",
    "low10": "linear probe accuracy, 10% of the labels",
}
METHOD, CONTRASTIVE = "align-uniform", "simclr-tau-0.2"
SUBJECTS = {METHOD: "method", CONTRASTIVE: "SimCLR (tau 0.2)", "simclr-tau-0.5": "SimCLR (tau 0.5)"}
HEADLINES = {METHOD, CONTRASTIVE, "random encoder", "raw pixels", "supervised"}


def by_group(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Rows that differ by seed only, together."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row.group].append(row)
    return dict(groups)


def mean(groups: Mapping[str, Sequence[Row]], group: str, measure: str) -> float:
    """Mean of one measure over the seeds of a group."""
    return float(np.mean([getattr(row, measure) for row in groups[group]]))


def group_figures(groups: Mapping[str, Sequence[Row]]) -> list[Figure]:
    """One figure a group and measure, with the spread over seeds; the main comparison has a setting of its own."""
    found = []
    compared = max((row.steps for group in HEADLINES for row in groups.get(group, [])), default=0)
    for group, rows in groups.items():
        setting = f"Fashion-MNIST, small encoders, {rows[0].steps or compared} steps on 20,000 pictures"
        if group not in HEADLINES:
            setting += ", sweep"
        for measure, name in MEASURES.items():
            found.append(
                Figure.over_seeds(
                    name,
                    [getattr(row, measure) for row in rows],
                    subject=SUBJECTS.get(group, group),
                    setting=setting,
                    headline=group in HEADLINES and measure in ("linear", "low1"),
                )
            )
        for measure, name in (("align", "L_align"), ("uniform", "L_uniform")):
            values = [value for row in rows if (value := getattr(row, measure)) is not None]
            if values:
                found.append(Figure.over_seeds(name, values, subject=SUBJECTS.get(group, group), setting=setting))
    return found


def row_table(rows: Sequence[Row]) -> Table:
    """Every encoder as one line, rounded."""
    return [
        {key: round(value, 5) if isinstance(value, float) else value for key, value in asdict(row).items()}
        for row in rows
    ]


def claims(
    groups: Mapping[str, Sequence[Row]], correlations: Mapping[str, float], circle: Sequence[Mapping[str, object]]
) -> list[str]:
    """What the measurements say about the paper's claims, sentence by sentence; groups not measured are left out."""
    found = []
    if {METHOD, CONTRASTIVE} <= groups.keys():
        found += [_against_contrastive(groups), _few_labels(groups, "low1", "1%"), _few_labels(groups, "low10", "10%")]
    if {METHOD, "raw pixels"} <= groups.keys():
        found.append(_against_pixels(groups))
    if {METHOD, "align-only", "uniform-only"} <= groups.keys():
        found.append(_controls(groups))
    for size in (32, 64):
        if {f"align-uniform-batch-{size}", f"simclr-batch-{size}"} <= groups.keys():
            found.append(_small_batch(groups, size))
    found.append(
        f"Accuracy against the metrics over {correlations['encoders']:.0f} encoders: Spearman's rho of linear-probe "
        f"accuracy is {correlations['align']:+.2f} with L_align, {correlations['uniform']:+.2f} with L_uniform and "
        f"{correlations['total']:+.2f} with their sum. |rho| >= 0.6 with each of the two: "
        f"{_verdict(min(abs(correlations['align']), abs(correlations['uniform'])) >= 0.6)}. Partial, with the other "
        f"metric's rank held fixed: {correlations['align_given_uniform']:+.2f} with L_align, "
        f"{correlations['uniform_given_align']:+.2f} with L_uniform. "
        f"{correlations['best_in_corner']:.0f} of the 5 most accurate encoders are in the better half by the sum."
    )
    deviations = ", ".join(f"{point['deviation']:.4f} at M={point['M']}" for point in circle)
    found.append(
        f"Theorem 1 on the circle (tau 0.5): the loss minus log M comes within {deviations} of its limit -1.17601; "
        "it falls about as 1/M here, inside the O(M^-1/2) bound."
    )
    return found


def _verdict(held: bool) -> str:
    return "holds" if held else "does not hold"


def _points(value: float) -> str:
    return f"{100 * value:+.1f} points"


def _difference(groups: Mapping[str, Sequence[Row]], a: str, b: str, measure: str) -> float:
    return mean(groups, a, measure) - mean(groups, b, measure)


def _against_contrastive(groups: Mapping[str, Sequence[Row]]) -> str:
    linear, knn = (_difference(groups, METHOD, CONTRASTIVE, measure) for measure in ("linear", "knn"))
    return (
        f"Within one point of SimCLR (tau 0.2) at equal steps: {_verdict(linear >= -0.01)} "
        f"({_points(linear)} by linear probe, {_points(knn)} by k-NN). "
        f"By linear probe, {_temperatures(groups)}."
    )


def _temperatures(groups: Mapping[str, Sequence[Row]]) -> str:
    names = sorted(name for name in (METHOD, *groups) if name.startswith("simclr-tau-") or name == METHOD)
    return ", ".join(
        f"{name} {100 * mean(groups, name, 'linear'):.1f}% ({len(groups[name])} runs)" for name in dict.fromkeys(names)
    )


def _few_labels(groups: Mapping[str, Sequence[Row]], measure: str, share: str) -> str:
    ours, theirs = (_difference(groups, name, "random encoder", measure) for name in (METHOD, CONTRASTIVE))
    return (
        f"With {share} of the labels within one point of SimCLR: {_verdict(ours - theirs >= -0.01)} "
        f"({_points(ours - theirs)}); both at least 5 points over a random encoder: "
        f"{_verdict(min(ours, theirs) >= 0.05)} (this method {_points(ours)}, SimCLR {_points(theirs)})."
    )


def _against_pixels(groups: Mapping[str, Sequence[Row]]) -> str:
    parts = ", ".join(
        f"{_points(_difference(groups, METHOD, 'raw pixels', measure))} ({name})" for measure, name in MEASURES.items()
    )
    return f"Against a probe on the 784 raw pixels, a strong baseline on this data set, the 64 features have {parts}."


def _controls(groups: Mapping[str, Sequence[Row]]) -> str:
    align, uniform = (_difference(groups, METHOD, name, "linear") for name in ("align-only", "uniform-only"))
    return (
        f"Either loss alone fails: {_verdict(min(align, uniform) >= 0.02)} (both losses together are {_points(align)} "
        f"over alignment alone, which collapses, and {_points(uniform)} over uniformity alone)."
    )


def _small_batch(groups: Mapping[str, Sequence[Row]], size: int) -> str:
    ours, theirs = f"align-uniform-batch-{size}", f"simclr-batch-{size}"
    linear, knn, low1 = (_difference(groups, ours, theirs, measure) for measure in ("linear", "knn", "low1"))
    spread = np.sqrt(np.mean([np.var([row.linear for row in groups[name]], ddof=1) for name in (ours, theirs)]))
    return (
        f"With batches of {size} and {groups[ours][0].steps:,} steps each, alignment and uniformity is "
        f"{_points(linear)} against SimCLR (tau 0.2) by linear probe, {_points(knn)} by k-NN and {_points(low1)} with "
        f"1% of the labels ({len(groups[ours])} seeds each, whose linear probes vary by {100 * spread:.1f} points); "
        f"better with small batches: {_verdict(linear > 0.005)}."
    )
