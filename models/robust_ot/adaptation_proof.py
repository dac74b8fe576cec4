"""Proof of robust adaptation: from one set of digits to another, a tenth of which are Fashion pictures.

``python -m models.robust_ot.adaptation_proof FOLDER`` trains every arm in both directions, on a GPU where there is one
(resumable in the folder), stores the rows in ``FOLDER/rows.json`` and prints what held. ``weights/adaptation.json``
holds such rows, which the evaluation reads.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from models.core import sources
from models.core.classifiers import logits_of
from models.core.dataset import Dataset
from models.core.devices import pick_device
from models.core.inputs import ImageSpec, Int64, UInt8
from models.core.parts import Row, measure_parts
from models.core.run import LocalRun, Run
from models.robust_ot.adapt import run_adaptation
from models.robust_ot.adaptation import Adaptation
from models.robust_ot.dual import chi_square
from models.robust_ot.pollution import area_under_roc
from models.robust_ot.proofs import Measured
from models.robust_ot.schema import AdaptParameters

STORED = Path(__file__).parent / "weights" / "adaptation.json"
SHARE = 0.1
SEEDS = 3
DIRECTIONS = (("digits", "digits-8x8"), ("digits-8x8", "digits"))
METHOD, PLAIN, SOURCE_ONLY = "method", "plain adversarial adaptation", "source only"
STEPS, ALONE = 1000, 0.3
ARMS: dict[str, tuple[float, float]] = {SOURCE_ONLY: (1.0, 0.0), PLAIN: (ALONE, 0.0), METHOD: (ALONE, SHARE)}
ACCURACY, AUROC, DIVERGENCE = "target accuracy", "AUROC of target weights", "chi-square of target weights"
QUANTITIES = (ACCURACY, AUROC, DIVERGENCE)
TITLES = {"digits": "digits", "digits-8x8": "8x8 digits"}
_TARGET_GAIN = 0.01
_BOX = ImageSpec(height=20, width=20, channels=1)


def setting(source: str, target: str) -> str:
    """What is measured on."""
    return f"{TITLES[source]} to {TITLES[target]} with 10% Fashion"


def arm_parameters(arm: str, steps: int) -> AdaptParameters:
    """Of ``steps`` in all, the share that is on the source alone, and the outliers that are expected."""
    alone, fraction = ARMS[arm]
    return AdaptParameters(target="", steps=steps, source_steps=round(alone * steps), outlier_fraction=fraction)


def measure_cells(run: Run, steps: int = STEPS, seeds: int = SEEDS) -> list[Row]:
    """Train every arm in both directions from each seed.

    Raises:
        Cancelled: the user asked for it.
    """
    cells = list(product(range(run.seed, run.seed + seeds), DIRECTIONS, ARMS))
    titles = [f"{setting(*direction)}, {arm}, seed {seed}" for seed, direction, arm in cells]
    return measure_parts(run, titles, lambda number, part: measure_cell(*cells[number], steps, part))


def stored_claims(measured: Measured) -> list[str]:
    """Add the stored rows, and say what held."""
    rows: list[Row] = json.loads(STORED.read_text(encoding="utf-8"))
    return claims(rows, measured)


def claims(rows: Sequence[Row], measured: Measured) -> list[str]:
    """Add the rows, and say what held in each direction that was measured."""
    for row in rows:
        for quantity in QUANTITIES:
            value = row.get(quantity)
            if isinstance(value, float):
                measured.add(quantity, str(row["arm"]), str(row["setting"]), value)
    return [_claim(measured, where) for where in dict.fromkeys(str(row["setting"]) for row in rows)]


def measure_cell(seed: int, direction: tuple[str, str], arm: str, steps: int, run: Run) -> Row:
    """Adapt once; the accuracy is that on the target's digits, whose labels were not used."""
    source, target = (sources.load(name, "all") for name in direction)
    pictures, outlier = polluted(target, seed)
    game = Adaptation(
        to_tensor(centred(source)), torch.from_numpy(source.require_labels()), len(source.class_names),
        to_tensor(pictures), arm_parameters(arm, steps), seed, pick_device(run.device),
    )  # fmt: skip
    run_adaptation(game, run)
    predicted: Int64 = logits_of(game.network, to_tensor(pictures)).argmax(dim=1).numpy()
    accuracy = float((predicted == target.require_labels())[~outlier].mean())
    row: Row = {"setting": setting(*direction), "arm": arm, "seed": seed, "steps": steps, ACCURACY: accuracy}
    if arm == METHOD:
        row[AUROC] = area_under_roc(-game.weights, outlier)
        row[DIVERGENCE] = chi_square(game.weights, np.full(len(outlier), 1.0 / len(outlier)))
    run.log(json.dumps(row))
    return row


def centred(dataset: Dataset) -> UInt8:
    """Digits as uint8 ``(N, 28, 28, 1)``: in the 20-pixel box in which one of the sets has them already."""
    pictures = np.asarray(dataset.inputs)
    if pictures.shape[1] == 28:
        return pictures
    return np.pad(dataset.images(_BOX), ((0, 0), (4, 4), (4, 4), (0, 0)))


def polluted(target: Dataset, seed: int) -> tuple[UInt8, npt.NDArray[np.bool_]]:
    """The target's pictures with a tenth of them replaced by Fashion pictures, and which ones those are.

    The Fashion pictures come in the target's size: sharp ones among blown-up digits would look like the source's.
    """
    mixed, junk = centred(target).copy(), sources.load("fashion-mnist", "train")
    rng = np.random.default_rng(seed)
    outlier = np.zeros(len(mixed), dtype=bool)
    outlier[rng.choice(len(mixed), round(SHARE * len(mixed)), replace=False)] = True
    chosen = junk.select(rng.choice(len(junk), int(outlier.sum()), replace=False))
    height, width, channels = np.shape(target.inputs[0])
    spec = ImageSpec(height=height, width=width, channels=channels)
    mixed[outlier] = centred(replace(chosen, inputs=chosen.images(spec)))
    return mixed, outlier


def to_tensor(pictures: UInt8) -> torch.Tensor:
    """uint8 ``(N, H, W, C)`` to ``(N, C, H, W)``."""
    return torch.from_numpy(pictures.transpose(0, 3, 1, 2).copy())


def _claim(measured: Measured, where: str) -> str:
    robust, plain, bare = (measured.values[ACCURACY, arm, where] for arm in (METHOD, PLAIN, SOURCE_ONLY))
    gain = float(np.mean(robust) - np.mean(plain))
    wins = sum(first > second for first, second in zip(robust, plain, strict=True))
    auroc = measured.mean(AUROC, METHOD, where)
    verdict = "met" if gain >= _TARGET_GAIN else f"missed ({gain:+.1%})"
    return (
        f"Adaptation, {where}: accuracy on the target's digits {np.mean(robust):.1%} robust, {np.mean(plain):.1%} "
        f"plain adversarial, {np.mean(bare):.1%} source only; robust is above plain for {wins} of {len(robust)} seeds, "
        f"and the target of one point more is {verdict}. AUROC of the target's weights as outlier scores: {auroc:.3f}."
    )


def main() -> None:
    """Measure all cells and print what held."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="folder of the run, kept for resuming")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    run = LocalRun(options.folder, device=options.device, log=lambda line: print(line, flush=True))
    rows = measure_cells(run, options.steps, options.seeds)
    (options.folder / "rows.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    print(*claims(rows, Measured()), sep="\n")


if __name__ == "__main__":
    main()
