"""Draws ``aum.png`` beside this file: margins while a network learns, their averages, and the proof."""

import tempfile
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from models.aum.features import extract_features
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
    figure = Figure(figsize=(13, 3.9), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    while_learning, averages, proof = figure.subplots(1, 3, width_ratios=[1, 1, 1.15])
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
    averages.annotate("cut: 99% of the\nthreshold samples\nlie below", (ranking.thresholds[0] + 0.2, 0.36), fontsize=8)
    averages.set(title="its mean: the area under the margin\n(6,000 Fashion-MNIST, 20% wrong labels)", xlabel="AUM")
    averages.set_yticks([])
    draw_proof(proof)
    for axes in (while_learning, averages, proof):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(Path(__file__).with_name("aum.png"))


def draw_proof(axes):
    """AUROC of the four rankings in each setting of the stored proof."""
    rows = Checkpoint(ROOT / "models" / "aum" / "weights").figures.tables["proof"]
    settings = list(dict.fromkeys((row["data"], row["noise"], row["rate"]) for row in rows))
    rankings = {
        "AUM": ("auroc_aum", SUSPECT),
        "loss, stopped early": ("auroc_loss_early", KEPT),
        "confident learning": ("auroc_confident", "#8fb58a"),
        "final loss": ("auroc_loss", "#b9c4d0"),
    }
    places = np.arange(len(settings))
    for shift, (name, (key, colour)) in enumerate(rankings.items()):
        values = [np.mean([r[key] for r in rows if (r["data"], r["noise"], r["rate"]) == s]) for s in settings]
        axes.barh(places + (shift - 1.5) * 0.2, values, 0.2, color=colour, label=name)
    axes.set_yticks(places, [f"{data.replace('-mnist', '')} {noise} {rate:.0%}" for data, noise, rate in settings])
    axes.invert_yaxis()
    axes.set(title="AUROC of finding the wrong labels\n(means of 3 seeds)", xlim=(0.5, 1.0))
    axes.legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(-0.02, -0.3), ncol=2)


if __name__ == "__main__":
    main()
