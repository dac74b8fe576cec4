"""What recording margins costs a training loop, and the statistic against the official package."""

import statistics
import tempfile
import time
from pathlib import Path

import aum
import numpy as np
import torch

from models.aum.features import extract_features
from models.aum.fit import Schedule, fit
from models.aum.stages import Stages
from models.core.margins import Margins
from models.core.run import LocalRun
from models.core.sources import load
from tests.benchmarks.report import Report

PLAIN = "without margins"


def run(*, quick):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return [_training(quick), _statistic(quick)]
    finally:
        torch.set_num_threads(threads)


def _training(quick):
    """The same training with and without margins, one after the other, so that both meet the same machine."""
    samples, repeats, epochs = (2000, 2, 2) if quick else (10_000, 7, 2)
    data = load("fashion-mnist").select(np.arange(samples))
    features = extract_features(data, "small-cnn", image_size=64, seed=0)
    targets = torch.from_numpy(data.labels)
    report = Report(
        f"Training the small network on {samples:,} pictures, {epochs} epochs, batches of 64, one thread (CPU seconds)",
        ["loop", "median", "least", "median of paired ratios"],
    )
    times = {PLAIN: [], "with margins and logit sums": []}
    for repeat in range(repeats + 1):
        for name, seconds in times.items():
            margins = None if name == PLAIN else Margins(samples, 10)
            with tempfile.TemporaryDirectory() as folder:
                stages = Stages(LocalRun(Path(folder)), {"a": 1.0})
                begin = time.process_time()
                fit(
                    stages, "a", lambda: features.network(10), features.inputs, targets,
                    Schedule(epochs, 64, 0.1, 1e-4), seed=0, margins=margins,
                )  # fmt: skip
                spent = time.process_time() - begin
            if repeat:  # the first round warms up
                seconds.append(spent)
    plain = times[PLAIN]
    ratios = []
    for name, seconds in times.items():
        ratio = statistics.median(a / b for a, b in zip(seconds, plain, strict=True))
        ratios.append(ratio)
        report.add(name, f"{statistics.median(seconds):.2f} s", f"{min(seconds):.2f} s", f"{ratio:.3f}")
    verdict = "reached" if ratios[-1] <= 1.05 else "missed: with batches this small each tensor operation is overhead"
    report.notes.append(f"target: at most 5% more than the training without it: {verdict}")
    return report


def _statistic(quick):
    samples, classes, batch = (5000 if quick else 50_000), 10, 64
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(samples, classes, generator=generator)
    targets = torch.randint(0, classes, (samples,), generator=generator)
    batches = list(torch.split(torch.arange(samples), batch))
    ids = [indices.tolist() for indices in batches]
    ours = Margins(samples)

    def official():
        with tempfile.TemporaryDirectory() as folder:
            calculator = aum.AUMCalculator(folder)
            begin = time.perf_counter()
            for indices, names in zip(batches, ids, strict=True):
                calculator.update(logits[indices], targets[indices], names)
            return time.perf_counter() - begin

    def own():
        begin = time.perf_counter()
        for indices in batches:
            ours.update(logits[indices], targets[indices], indices)
        return time.perf_counter() - begin

    rounds = [(own(), official()) for _ in range(2 if quick else 5)]
    mine, theirs = (statistics.median(column) for column in zip(*rounds, strict=True))
    report = Report(
        f"The statistic alone, {samples:,} samples of {classes} logits in batches of {batch}", ["by", "median", "ratio"]
    )
    report.add("aum 1.0.2 (official)", f"{theirs:.3f} s", "1")
    report.add("models.core.margins", f"{mine:.3f} s", f"{theirs / mine:.1f}x faster")
    return report
