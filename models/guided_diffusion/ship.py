"""Makes what ``weights/`` holds, in steps that run side by side on one accelerator.

``python -m models.guided_diffusion.ship train FOLDER --version digits`` trains one of :data:`RECIPES`;
``... baseline FOLDER --which clean-guide`` trains beside it what the proof would train by itself to compare with;
``... measure FOLDER --share 0/3 --seconds 200`` measures a share of the proof's cells, and begins none after that time;
``... prove FOLDER`` makes figures and pictures of the measured cells, and ``... write FOLDER`` copies the version.

``FOLDER/checkpoint`` is the version at work: what ``train`` leaves, or a copy of a shipped one. A new version keeps the
shipped one's judge, so that both are measured by the same features.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from models.core.checkpoint import WEIGHTS, Checkpoint
from models.core.devices import pick_device
from models.core.run import LocalRun
from models.core.sources import load
from models.guided_diffusion.baselines import clean_guide, simple_twin
from models.guided_diffusion.cells import from_json, to_json
from models.guided_diffusion.evaluate import Proof
from models.guided_diffusion.plan import PLANS, Plan
from models.guided_diffusion.schema import Config
from models.guided_diffusion.versions import SHIPPED, write_version

DEFAULT = "1"
RECIPES: dict[str, tuple[str, Config]] = {
    DEFAULT: ("fashion-mnist", Config(compile=True)),
    "digits": (
        "digits",
        Config(
            width=16,
            classifier_width=16,
            steps=1200,
            classifier_steps=800,
            learning_rate=2e-3,
            ema=0.995,
            eta=1,
            compile=True,
        ),
    ),
}
"""Data set and configuration of each version."""


def shipped(version: str) -> Path:
    """Folder of a version in the repository."""
    return SHIPPED if version == DEFAULT else SHIPPED / version


def train(folder: Path, version: str, device: str, changes: dict[str, Any]) -> None:
    """Train a version into ``folder/checkpoint``; it goes on where it was killed."""
    name, config = _recipe(version, changes)
    run = _run(folder, device)
    trained = write_version(load(name, "train"), config.model_copy(update={"judge_steps": 1}), run)
    old = Checkpoint(shipped(version))
    judge = {key: value for key, value in old.tensors().items() if key.startswith("judge.")}
    kept = {**config.model_dump(mode="json"), "judge_steps": old.config.config["judge_steps"]}
    command = f"python -m models.guided_diffusion.ship train runs/{version} --version {version}"
    Checkpoint.write(
        folder / "checkpoint",
        trained.config.model_copy(update={"version": version, "config": kept, "command": command}),
        {**trained.tensors(), **judge},
    )


def baseline(folder: Path, version: str, which: str, device: str, changes: dict[str, Any]) -> None:
    """Train the clean guide or the twin of a version, which may be in training itself."""
    name, config = _recipe(version, changes)
    make = clean_guide if which == "clean-guide" else simple_twin
    make(config, load(name, "train"), _run(folder, device))


def measure(folder: Path, plan: Plan, device: str, share: str, groups: list[str], seconds: float) -> None:
    """Append each measured cell of a share to ``folder/cells-SHARE.jsonl``; what any process finished is left out."""
    started = time.monotonic()
    proof = Proof.open(Checkpoint(folder / "checkpoint"), _run(folder, device), plan)
    chosen = [cell for cell in proof.cells if not groups or cell.group in groups]
    part, _, parts = share.partition("/")
    chosen = chosen[int(part) :: int(parts)]
    bench = proof.bench({cell.guide for cell in chosen})
    path = folder / f"cells-{'-'.join(groups).replace(' ', '_')}{part}.jsonl"
    for cell in chosen:
        if time.monotonic() - started > seconds:
            break
        if cell.name not in measured_in(folder):
            begun = time.monotonic()
            found = to_json(bench.measure(cell))
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"name": cell.name, **found}) + "\n")
            print(f"{cell.name}: FID {found['fid']:.2f}, {time.monotonic() - begun:.1f} s", flush=True)


def measured_in(folder: Path) -> dict[str, dict[str, Any]]:
    """The cells that were measured, by name."""
    found = {}
    for path in sorted(folder.glob("cells-*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            found[row.pop("name")] = row
    return found


def prove(folder: Path, plan: Plan, device: str) -> None:
    """Figures of the cells that were measured; the twin's bound only where it was trained."""
    trained = (folder / "scratch" / "simple-twin" / "scratch" / "checkpoint" / WEIGHTS).exists()
    chosen = replace(plan, twin=plan.twin and trained)
    checkpoint = Checkpoint(folder / "checkpoint")
    proof = Proof.open(checkpoint, _run(folder, device), chosen)
    figures = proof.figures(list(from_json(proof.cells, measured_in(folder))))
    version = checkpoint.config.version
    figures.command = (
        f"python -m models.guided_diffusion.ship measure, then prove runs/{version} --plan {plan.name} "
        f"--guides {' '.join(plan.guides)}"
    )
    checkpoint.write_figures(figures)
    print(*figures.claims, sep="\n")


def write(folder: Path) -> None:
    """Copy ``folder/checkpoint`` to its place in ``weights/``."""
    checkpoint = Checkpoint(folder / "checkpoint")
    shutil.copytree(checkpoint.folder, shipped(checkpoint.config.version), dirs_exist_ok=True)


def _recipe(version: str, changes: dict[str, Any]) -> tuple[str, Config]:
    name, recipe = RECIPES[version]
    return name, Config.model_validate({**recipe.model_dump(), **changes})


def _run(folder: Path, device: str) -> LocalRun:
    last = [0.0]

    def report(share: float, stage: str, message: str) -> None:
        if time.monotonic() > last[0] + 5:
            last[0] = time.monotonic()
            print(f"{share:.2f} {stage} {message}", flush=True)

    folder.mkdir(parents=True, exist_ok=True)
    return LocalRun(folder, device=str(pick_device(device)), report=report, log=print)


def main() -> None:
    """Run one of the steps."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=["train", "baseline", "measure", "prove", "write"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--version", choices=list(RECIPES), default=DEFAULT)
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="change the recipe")
    parser.add_argument("--which", choices=["clean-guide", "simple-twin"], default="clean-guide")
    parser.add_argument("--plan", choices=list(PLANS), default="full")
    parser.add_argument("--guides", nargs="+", choices=["blind", "clean"], help="other guides (default: the plan's)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--share", default="0/1")
    parser.add_argument("--groups", nargs="*", default=[])
    parser.add_argument("--seconds", type=float, default=float("inf"))
    arguments = parser.parse_args()
    folder, device, plan = arguments.folder, arguments.device, PLANS[arguments.plan]
    if arguments.guides:
        plan = replace(plan, guides=tuple(arguments.guides))
    changes = {field: json.loads(value) for field, _, value in (text.partition("=") for text in arguments.set)}
    if arguments.step == "train":
        train(folder, arguments.version, device, changes)
    elif arguments.step == "baseline":
        baseline(folder, arguments.version, arguments.which, device, changes)
    elif arguments.step == "measure":
        measure(folder, plan, device, arguments.share, arguments.groups, arguments.seconds)
    elif arguments.step == "prove":
        prove(folder, plan, device)
    else:
        write(folder)


if __name__ == "__main__":
    main()
