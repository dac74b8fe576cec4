"""Draws ``aum.png`` beside this file, margins while a network learns and the proof; fills in the tables of the page."""

import tempfile
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from models.aum.features import extract_features
from models.aum.findings import by_setting, means
from models.aum.fit import Schedule
from models.aum.folds import FoldPlan, run_folds
from models.aum.pictures import INK, KEPT, SUSPECT, THRESHOLD
from models.aum.ranking import rank_samples
from models.aum.stages import Stages
from models.aum.thresholds import threshold_count
from models.core.checkpoint import Checkpoint
from models.core.noise import corrupt_labels
from models.core.run import LocalRun
from models.core.sources import load

ROOT = Path(__file__).parents[2]
SAMPLES, EPOCHS = 6000, 8
ESTIMATES = ("estimate_mixture", "estimate_loss_mixture", "flagged_confident")
PICTURED = 8_000  # samples of the settings in the picture
RANKINGS = {
    "AUM": ("auroc_aum", SUSPECT, "o"),
    "mean probability": ("auroc_probability", "#e0a458", "D"),
    "loss, stopped early": ("auroc_loss_early", KEPT, "s"),
    "final loss": ("auroc_loss", "#9aa5b1", "v"),
    "confident learning": ("auroc_confident", "#6a9a66", "^"),
}


def measure():
    """Margins of pictures of which a fifth is mislabeled, which labels are wrong, and the ranking."""
    clean = load("fashion-mnist").select(np.random.default_rng(0).permutation(60_000)[:SAMPLES])
    labels = corrupt_labels(clean.labels, 10, kind="uniform", rate=0.2, seed=1)
    features = extract_features(clean, "small-cnn", image_size=64, seed=0)
    plan = FoldPlan(2, threshold_count(SAMPLES, 10), Schedule(EPOCHS, 64, 0.1, 1e-4), 0, trajectories=True)
    with tempfile.TemporaryDirectory() as folder:
        stages = Stages(LocalRun(Path(folder)), dict.fromkeys(plan.names, 1.0))
        runs = run_folds(stages, features, labels, 10, plan, 0)
    return runs, labels != clean.labels, rank_samples(runs, labels, 99, "all")


def main():
    """Draw the three panels."""
    runs, wrong, ranking = measure()
    figure = Figure(figsize=(11, 8.6), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    (while_learning, averages), (proof, rates) = figure.subplots(2, 2, height_ratios=[1, 1.25])
    threshold = np.zeros(SAMPLES, dtype=bool)
    threshold[runs.sets[0]] = True
    groups = (
        ("right label", ~wrong & ~threshold, KEPT),
        ("wrong label", wrong & ~threshold, SUSPECT),
        ("threshold sample", threshold, THRESHOLD),
    )
    for name, chosen, colour in groups:
        low, middle, high = np.percentile(runs.trajectories[0][chosen].astype(float), [25, 50, 75], axis=0)
        epochs = np.arange(1, EPOCHS + 1)
        while_learning.plot(epochs, middle, color=colour, linewidth=2, label=name)
        while_learning.fill_between(epochs, low, high, color=colour, alpha=0.2, linewidth=0)
        values = np.clip(runs.aum[0][chosen], -6, 6)
        averages.hist(values, np.linspace(-6, 6, 49), density=True, histtype="stepfilled", color=colour, alpha=0.45)
    while_learning.set(title="margin while the network learns\n(median, middle half)", xlabel="epoch", ylabel="margin")
    while_learning.axhline(0, color=INK, linewidth=0.6)
    while_learning.set_ylim(-4.2, 5)
    while_learning.legend(frameon=False, loc="upper left")
    averages.axvline(ranking.thresholds[0], color=INK, linestyle="--", linewidth=1.2)
    averages.text(0.52, 0.86, "cut: 99% of the\nthreshold samples\nlie below", fontsize=8, transform=averages.transAxes)
    averages.set(title="its mean: the area under the margin\n(6,000 Fashion-MNIST, 20% wrong labels)", xlabel="AUM")
    averages.set_yticks([])
    rows = Checkpoint(ROOT / "models" / "aum" / "weights").figures.tables["proof"]
    draw_proof(proof, [row for row in rows if row["samples"] == PICTURED and row["noise"] != "none"])
    draw_rates(rates, [row for row in rows if row["samples"] == PICTURED])
    write_tables(rows)
    for axes in (while_learning, averages, proof, rates):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(Path(__file__).with_name("aum.png"))


def draw_proof(axes, rows):
    """AUROC of the rankings in each setting."""
    settings = by_setting(rows)
    places = np.arange(len(settings))
    for name, (key, colour, marker) in RANKINGS.items():
        values = [means(chosen).get(key, np.nan) for chosen in settings.values()]
        axes.plot(values, places, marker, color=colour, label=name, markersize=7 if key == "auroc_aum" else 5)
    axes.set_yticks(places, [short(setting) for setting in settings])
    axes.invert_yaxis()
    axes.grid(axis="y", alpha=0.25)
    axes.set(title="AUROC of finding the wrong labels (means of 3 seeds)", xlabel="AUROC", xlim=(None, 1.003))
    axes.legend(frameon=False, fontsize=8, loc="upper left")


def draw_rates(axes, rows):
    """Estimated against true noise rate, with the interval, and what a mixture estimates."""
    for setting, chosen in by_setting(rows).items():
        mean = means(chosen)
        colour = SUSPECT if "flip" in setting else KEPT
        marker = "o" if setting.startswith("fashion") else "s"
        error = [[mean["estimate"] - mean["low"]], [mean["high"] - mean["estimate"]]]
        axes.errorbar(mean["true_share"], mean["estimate"], error, marker=marker, color=colour, capsize=3, linewidth=1)
        axes.plot(mean["true_share"], mean.get("estimate_mixture", np.nan), "x", color=THRESHOLD, markersize=6)
    axes.plot([0, 0.42], [0, 0.42], color=INK, linewidth=0.8)
    handles = [
        Line2D([], [], marker="o", color=KEPT, label="uniform or none: 90th percentile, low to high"),
        Line2D([], [], marker="o", color=SUSPECT, label="flip"),
        Line2D([], [], marker="x", color=THRESHOLD, linestyle="none", label="two-component mixture on AUM"),
        Line2D([], [], color=INK, linewidth=0.8, label="truth"),
    ]
    axes.legend(handles=handles, frameon=False, fontsize=8)
    axes.set(title="estimated noise rate (square: digits)", xlabel="true share of wrong labels")
    axes.set_ylabel("estimate")


def short(setting):
    """A setting without its data set's suffix and size."""
    data, noise, _ = setting.replace("-mnist", "").split(", ")
    return f"{data} {noise}"


def write_tables(rows):
    """Put the rows' means between the page's markers."""
    page = Path(__file__).with_name("aum.md")
    text = page.read_text(encoding="utf-8")
    for name, table in {"detection": detection(rows), "use": use(rows)}.items():
        before, rest = text.split(f"<!-- {name} -->\n")
        text = f"{before}<!-- {name} -->\n{table}<!-- {name} end -->\n" + rest.split(f"<!-- {name} end -->\n")[1]
    page.write_text(text, encoding="utf-8")


def number(value):
    """Three decimals, or a dash for what was not measured."""
    return "-" if value is None else f"{value:.3f}"


def header(names):
    """The first lines of a table."""
    return ["| " + " | ".join(names) + " |", "| --- " * len(names) + "|"]


def detection(rows):
    """How well each ranking finds the wrong labels."""
    names = [*RANKINGS, "average precision: AUM / mean probability / CL", "flags of AUM: precision, recall, F1",
             "F1 of flags: CL, mixture"]  # fmt: skip
    names[0] = "AUROC: AUM"
    lines = header(["data, noise, samples", *names])
    for setting, chosen in by_setting([row for row in rows if row["noise"] != "none"]).items():
        mean, spread = means(chosen), float(np.std([row["auroc_aum"] for row in chosen], ddof=len(chosen) > 1))
        values = [mean.get(key) for key, *_ in RANKINGS.values()]
        best = max(value for value in values if value is not None)
        cells = [f"**{value:.3f}**" if value == best else number(value) for value in values]
        cells[0] += f" ± {spread:.3f}" if len(chosen) > 1 else ""
        cells += [
            " / ".join(number(mean.get(f"ap_{name}")) for name in ("aum", "probability", "confident")),
            ", ".join(number(mean[f"{score}_aum"]) for score in ("precision", "recall", "f1")),
            ", ".join(number(mean.get(f"f1_{name}")) for name in ("confident", "mixture")),
        ]
        lines.append("| " + " | ".join([setting, *cells]) + " |")
    return "\n".join(lines) + "\n"


def use(rows):
    """What the ranking is for: accuracy after cleaning, and how much noise there is."""
    names = ["accuracy: all / random drop / CL / AUM / oracle", "gain in points, of the oracle's", "share flagged",
             "noise: true, estimate (low to high)", "by mixture on AUM, on the loss, by CL"]  # fmt: skip
    lines = header(["data, noise, samples", *names])
    for setting, chosen in by_setting(rows).items():
        mean = means(chosen)
        accuracies = [mean.get(f"accuracy_{arm}") for arm in ("all", "random", "confident", "aum", "oracle")]
        gain = "-"
        if "accuracy_aum" in mean:
            points = 100 * (mean["accuracy_aum"] - mean["accuracy_all"])
            gain = f"{points:+.1f}"
            if "accuracy_oracle" in mean:
                gain += f", {points / 100 / (mean['accuracy_oracle'] - mean['accuracy_all']):.0%}"
        cells = [
            " / ".join(map(number, accuracies)),
            gain,
            f"{mean['flagged_aum']:.3f}",
            f"{mean['true_share']:.3f}, {mean['estimate']:.3f} ({mean['low']:.3f} to {mean['high']:.3f})",
            ", ".join(
                number(mean.get(key)) for key in ("estimate_mixture", "estimate_loss_mixture", "flagged_confident")
            ),
        ]
        lines.append("| " + " | ".join([setting, *cells]) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
