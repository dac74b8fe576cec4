"""Proof of transfer: errors after pretraining on many sources, and the distances that are to predict them.

``python -m models.otdd.transfer_proof FILE`` trains every pair from every seed, on a GPU where there is one, and writes
the errors after each source; a file that is there already is gone on with. ``weights/transfer.json`` is such a file.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from models.core.dataset import Dataset
from models.core.devices import pick_device
from models.otdd.pretraining import pretrain, target_error
from models.otdd.proofs import both
from models.otdd.variants import blurred, inverted, noisy, of_classes, original, rotated

SEEDS, SHOTS = 5, 10
SCRATCH = "none"
SAMPLES, POOL, TEST, SMALL_SAMPLES, DISTANCE_SAMPLES = 4000, 400, 2000, 900, 1000
CHANGES: dict[str, Callable[[Dataset], Dataset]] = {
    "": lambda dataset: dataset,
    ", rotated 45": lambda dataset: rotated(dataset, 45),
    ", inverted": inverted,
    ", blurred": blurred,
    ", noisy": noisy,
    ", 5 classes": lambda dataset: of_classes(dataset, 5),
}


Sets = tuple[dict[str, Dataset], dict[str, tuple[Dataset, Dataset]]]


def transfer_sets(seed: int) -> Sets:
    """Sources, and targets with their test sets; no picture of a target is in a source."""
    digits, fashion = original("digits", 10_000, seed), original("fashion-mnist", 10_000, seed, split="train")
    small = original("digits-8x8", 1797, seed)
    sources = {
        name + change: make(dataset.select(range(SAMPLES)))
        for name, dataset in (("digits", digits), ("fashion", fashion))
        for change, make in CHANGES.items()
    }
    sources["digits-8x8"] = small.select(range(SMALL_SAMPLES))
    targets = {
        "digits": digits.select(range(SAMPLES, len(digits))),
        "fashion": fashion.select(range(SAMPLES, len(fashion))),
        "digits-8x8": small.select(range(SMALL_SAMPLES, len(small))),
    }
    split = {
        name: (part.select(range(POOL)), part.select(range(POOL, min(POOL + TEST, len(part)))))
        for name, part in targets.items()
    }
    return sources, split


def transfer_errors(sets: Sets, seed: int, source: str, device: torch.device) -> list[dict[str, Any]]:
    """Test error on every target after pretraining on ``source``, or from random weights (``none``)."""
    sources, targets = sets
    start = None if source == SCRATCH else pretrain(sources[source], seed, device)
    return [
        {"seed": seed, "source": source, "target": name, "error": target_error(few, test, SHOTS, seed, device, start)}
        for name, (few, test) in targets.items()
    ]


def transfer_distances(seed: int) -> dict[tuple[str, str], tuple[float, float]]:
    """``{(source, target): (OTDD, label-agnostic W2)}`` on subsamples."""
    sources, targets = transfer_sets(seed)
    size = DISTANCE_SAMPLES
    found = {}
    for source, dataset in sources.items():
        for name, (_, test) in targets.items():
            a, b = dataset.select(range(min(size, len(dataset)))), test.select(range(min(size, len(test))))
            found[source, name] = both(a, b)
    return found


def main() -> None:
    """Train what the file lacks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, help="JSON rows of errors, written after each source")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    file: Path = options.file
    device = pick_device(options.device)
    rows: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else []
    done = {(row["seed"], row["source"]) for row in rows}
    for seed in range(SEEDS):
        sets = transfer_sets(seed)
        for source in (SCRATCH, *sets[0]):
            if (seed, source) in done:
                continue
            rows += transfer_errors(sets, seed, source, device)
            file.write_text(json.dumps(rows, indent=0) + "\n", encoding="utf-8")
            print(f"seed {seed}, {source}", flush=True)


if __name__ == "__main__":
    main()
