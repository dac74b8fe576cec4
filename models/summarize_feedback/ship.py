"""Makes what ``weights/`` holds, one step at a time, on the package descriptions.

The recipe, all of it the defaults and seed 0, on one thread::

    python -m models.summarize_feedback.ship sft
    python -m models.summarize_feedback.ship reward
    python -m models.summarize_feedback.ship ppo rows.jsonl --beta 0.1 --seed 0 --keep
    python -m models.summarize_feedback.ship ppo rows.jsonl --beta 0.1 --seed 1
    python -m models.summarize_feedback.ship ppo rows.jsonl --beta 0.1 --seed 2
    python -m models.summarize_feedback.ship ppo rows.jsonl --beta 0 --seed 0
    python -m models.summarize_feedback.ship ppo rows.jsonl --beta 0 --seed 1 --learning-rate 0.001
    python -m models.summarize_feedback.ship figures rows.jsonl

``sft`` takes 3,600 steps of 64 pairs, without dropout, at a peak rate of 2e-3 (22 minutes); ``reward`` learns from
simulated comparisons of that policy's summaries; ``ppo`` takes 50 rollouts of 128 texts at 1e-4, measures reward and
quality along the way and appends them to the rows, and ``--keep`` puts the policy into ``weights/``; ``figures``
measures everything on the test split. A step that is stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import numpy as np

from models.core.checkpoint import Checkpoint
from models.core.figures import Figure
from models.core.run import LocalRun
from models.core.sources import load
from models.summarize_feedback.bundle import WEIGHTS, read_bundle, write_bundle
from models.summarize_feedback.evaluate import evaluate_method
from models.summarize_feedback.examples import encode_sources, pairs_of
from models.summarize_feedback.over_optimization import Row, Yardstick, tune_and_measure, verdict
from models.summarize_feedback.schema import Config, PolicyOptions, RewardOptions, SupervisedOptions
from models.summarize_feedback.train import train_stage

DATA = "package-descriptions"
VALIDATION_TEXTS, POINTS = 400, 8


def train(stage: str, config: Config, folder: Path) -> None:
    """Train a stage and put its checkpoint into ``weights/``."""
    run = LocalRun(folder / stage, log=print, report=lambda fraction, name, text: print(name, text, flush=True))
    checkpoint = train_stage(load(DATA, "train"), config, run)
    shutil.copytree(checkpoint.folder, WEIGHTS, dirs_exist_ok=True)
    assert checkpoint.figures is not None
    for figure in checkpoint.figures.figures:
        print(figure.name, figure.text, figure.setting, flush=True)


def tune(options: PolicyOptions, seed: int, rows: Path, folder: Path, keep: bool) -> None:
    """Run PPO on the training texts and measure it on validation texts."""
    bundle = read_bundle(Checkpoint(WEIGHTS))
    data = load(DATA, "train")
    chosen = np.random.default_rng(seed).permutation(len(data))[: options.iterations * options.batch_size]
    pairs = pairs_of(data)
    sources, _ = encode_sources(bundle.tokenizer, [pairs[i][0] for i in chosen], bundle.shape)
    yardstick = Yardstick(bundle, pairs_of(load(DATA, "validation"))[:VALIDATION_TEXTS], options, seed)
    run = LocalRun(folder / f"ppo-{options.beta}-{seed}", seed=seed)
    policy, found, written = tune_and_measure(
        bundle, sources, yardstick, options, POINTS, run, lambda fraction, text: print(text, flush=True)
    )
    with rows.open("a", encoding="utf-8") as file:
        for row in found:
            file.write(json.dumps({"seed": seed, "learning rate": options.learning_rate, **row}) + "\n")
    print(verdict(found), *written[:20], sep="\n")
    if keep:
        bundle.ppo = policy
        config = Config(stage="ppo", ppo=options)
        write_bundle(WEIGHTS, bundle, config, data_sha256=data.sha256, seed=seed)


def figures(path: Path, folder: Path) -> None:
    """Measure the checkpoint on the test split and store it with the rows of PPO."""
    rows: list[Row] = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    checkpoint = Checkpoint(WEIGHTS)
    found = evaluate_method(checkpoint, LocalRun(folder / "evaluate"), None)
    found.tables["ppo on validation texts"] = rows
    runs: dict[tuple[float, float], dict[int, list[Row]]] = {}
    for row in rows:
        key = float(str(row["beta"])), float(str(row["learning rate"]))
        runs.setdefault(key, {}).setdefault(int(str(row["seed"])), []).append(row)
    for (beta, rate), seeds in sorted(runs.items()):
        found.claims += [f"Seed {seed}, rate {rate:g}, {verdict(measured)}" for seed, measured in seeds.items()]
        for name in ("quality G", "win rate", "KL"):
            finals = [float(str(measured[-1][name])) for measured in seeds.values()]
            setting = f"beta {beta:g}, rate {rate:g}, {VALIDATION_TEXTS} validation texts"
            found.figures.append(Figure.over_seeds(f"{name} of one sample after PPO", finals, setting=setting))
    found.command = "python -m models.summarize_feedback.ship"
    checkpoint.write_figures(found)


def main() -> None:
    """Run one step."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=["sft", "reward", "ppo", "figures"])
    parser.add_argument("rows", type=Path, nargs="?", default=Path("rows.jsonl"))
    parser.add_argument("--folder", type=Path, default=Path("runs/summarize-feedback"))
    parser.add_argument("--steps", type=int, default=3600)
    parser.add_argument("--comparisons", type=int, default=RewardOptions().simulated)
    parser.add_argument("--iterations", type=int, default=PolicyOptions().iterations)
    parser.add_argument("--beta", type=float, default=0.1)
    parser.add_argument("--learning-rate", type=float, default=PolicyOptions().learning_rate)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", action="store_true")
    arguments = parser.parse_args()
    if arguments.step == "sft":
        options = SupervisedOptions(dropout=0, max_steps=arguments.steps, learning_rate=2e-3)
        train("sft", Config(sft=options), arguments.folder)
    elif arguments.step == "reward":
        train(
            "reward",
            Config(stage="reward", reward=RewardOptions(comparisons="simulated", simulated=arguments.comparisons)),
            arguments.folder,
        )
    elif arguments.step == "ppo":
        tuning = PolicyOptions(
            beta=arguments.beta, iterations=arguments.iterations, learning_rate=arguments.learning_rate
        )
        tune(tuning, arguments.seed, arguments.rows, arguments.folder, arguments.keep)
    else:
        figures(arguments.rows, arguments.folder)


if __name__ == "__main__":
    main()
