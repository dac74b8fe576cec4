"""Makes what ``weights/`` holds, one step at a time, on the package descriptions.

The recipe; every step takes ``--recipe cpu`` or ``--recipe gpu``, which differ in sizes only::

    python -m models.summarize_feedback.ship sft
    python -m models.summarize_feedback.ship reward
    python -m models.summarize_feedback.ship curve --rows curve.jsonl
    python -m models.summarize_feedback.ship ppo --rows ppo.jsonl --beta 0.1 --seed 0 --keep
    python -m models.summarize_feedback.ship ppo --rows ppo.jsonl --beta 0 --seed 0
    python -m models.summarize_feedback.ship baselines --rows baselines.jsonl
    python -m models.summarize_feedback.ship best-of-n --rows best.jsonl
    python -m models.summarize_feedback.ship figures --rows ppo.jsonl curve.jsonl baselines.jsonl best.jsonl

``sft`` trains the supervised policy; ``reward`` learns from simulated comparisons of that policy's summaries, with
``gpu`` of texts that it was not trained on; ``curve`` trains reward models on fewer comparisons; ``ppo`` tunes the
policy, measures reward and quality on validation texts along the way and appends them to the rows, and ``--keep`` puts
it into ``weights/``; ``baselines`` learns from the same comparisons without a reward model; ``best-of-n`` measures the
supervised policy's on the texts that PPO is measured on; ``figures`` measures the test split and stores it with the
rows. A training that is stopped goes on where it was. What is shipped was made by ``cpu`` on one thread: 22 minutes for
``sft``, two for ``reward``, two for each run of ``ppo``.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from pydantic import BaseModel

from models.core.checkpoint import Checkpoint
from models.core.dataset import Dataset
from models.core.devices import pick_device
from models.core.run import LocalRun
from models.core.sources import load
from models.summarize_feedback.baselines import Baseline, tune_on_comparisons
from models.summarize_feedback.bundle import WEIGHTS, Bundle, read_bundle, write_bundle
from models.summarize_feedback.comparisons import SFT_KINDS, Preferences, encode_preferences
from models.summarize_feedback.evaluate import best_of_n_rows, evaluate_method
from models.summarize_feedback.examples import encode_sources, left_for_feedback, pairs_of
from models.summarize_feedback.findings import BEST_TABLE, PPO_TABLE
from models.summarize_feedback.judges import agreement_rows, noiseless
from models.summarize_feedback.measure import sample
from models.summarize_feedback.over_optimization import Row, Yardstick, tune_and_measure, verdict
from models.summarize_feedback.reward import train_reward
from models.summarize_feedback.schema import Config, PolicyOptions, RewardOptions, SupervisedOptions
from models.summarize_feedback.train import gather_preferences, train_stage

DATA = "package-descriptions"
OptionsT = TypeVar("OptionsT", bound=BaseModel)


@dataclass(frozen=True)
class Recipe:
    """Sizes of one way to make the weights and to measure them.

    Attributes:
        feedback_share: of the training texts that the supervised stage leaves to the others; 0: all stages use all.
        texts: of the test split that each way to summarise is measured on.
        validation_texts: that PPO, the baselines and the best of n are measured on.
        samples: drawn of each for the best of n.
        points: measurements along a run of PPO.
    """

    sft: SupervisedOptions
    reward: RewardOptions
    ppo: PolicyOptions
    feedback_share: float
    texts: int
    validation_texts: int
    samples: int
    points: int = 8

    def config(self, stage: str) -> Config:
        """The configuration of a training stage."""
        fields = {"sft": self.sft, "reward": self.reward, "ppo": self.ppo}
        share = self.feedback_share if stage == "sft" else 0
        return Config.model_validate({"stage": stage, "feedback_share": share, stage: fields[stage].model_dump()})

    def feedback(self) -> Dataset:
        """Pairs that the stages after the supervised one learn from."""
        data = load(DATA, "train")
        if not self.feedback_share:
            return data
        left = left_for_feedback([text for text, _ in pairs_of(data)], self.feedback_share)
        return data.select(np.flatnonzero(left))

    def measured(self) -> list[tuple[str, str]]:
        """Pairs that PPO is measured on."""
        return pairs_of(load(DATA, "validation"))[: self.validation_texts]


RECIPES = {
    "cpu": Recipe(
        SupervisedOptions(max_steps=3600, learning_rate=2e-3, dropout=0),
        RewardOptions(comparisons="simulated"),
        PolicyOptions(),
        feedback_share=0,
        texts=400,
        validation_texts=400,
        samples=32,
    ),
    "gpu": Recipe(
        SupervisedOptions(epochs=20, batch_size=128, learning_rate=2e-3, dropout=0.2, weight_decay=0.1),
        RewardOptions(comparisons="simulated", simulated=120_000, batch_size=256),
        PolicyOptions(iterations=200, batch_size=512, minibatches=4),
        feedback_share=0.3,
        texts=2670,
        validation_texts=2707,
        samples=64,
    ),
}


def train(stage: str, recipe: Recipe, run: LocalRun) -> None:
    """Train a stage and put its checkpoint into ``weights/``."""
    data = load(DATA, "train") if stage == "sft" else recipe.feedback()
    checkpoint = train_stage(data, recipe.config(stage), run)
    shutil.copytree(checkpoint.folder, WEIGHTS, dirs_exist_ok=True)
    assert checkpoint.figures is not None
    for figure in checkpoint.figures.figures:
        print(figure.name, figure.text, figure.setting, flush=True)


def tune(recipe: Recipe, run: LocalRun, rows: Path, keep: bool) -> None:
    """Run PPO on the texts of the feedback and measure it on validation texts."""
    bundle, data = _bundle(run), recipe.feedback()
    sources, _ = encode_sources(bundle.tokenizer, [text for text, _ in pairs_of(data)], bundle.shape)
    yardstick = Yardstick(bundle, recipe.measured(), recipe.ppo, run.seed)
    policy, found, written = tune_and_measure(
        bundle, sources, yardstick, recipe.ppo, recipe.points, run, lambda fraction, text: print(text, flush=True)
    )
    facts = {"seed": run.seed, "learning rate": recipe.ppo.learning_rate, "texts": recipe.validation_texts}
    _append(rows, PPO_TABLE, [{**facts, **row} for row in found])
    print(verdict(found), *written[:20], sep="\n")
    if keep:
        bundle.ppo = policy
        write_bundle(WEIGHTS, bundle, recipe.config("ppo"), data_sha256=data.sha256, seed=run.seed)


def learning_curve(recipe: Recipe, run: LocalRun, rows: Path) -> None:
    """Train reward models on 1,500, 3,000, 6,000, ... comparisons and measure each on the same ones of test texts."""
    bundle, learnt = _bundle(run), _comparisons(recipe, run)
    sources, summaries = encode_preferences(bundle.tokenizer, learnt, bundle.shape)
    tests = pairs_of(load(DATA, "test"))
    made = noiseless(bundle, tests, 2 * len(tests), 0)
    count = 1500
    while count <= len(learnt):
        bundle.reward = train_reward(
            bundle.encoder, bundle.sft, bundle.shape, sources[:count], summaries[:count], recipe.reward, run,
            lambda fraction, text: None,
        )  # fmt: skip
        found = agreement_rows(bundle, made)[0]
        _append(rows, "learning curve of the reward model", [{"seed": run.seed, "learnt from": count, **found}])
        count *= 2


def baselines(recipe: Recipe, run: LocalRun, rows: Path) -> None:
    """DPO and expert iteration on the reward model's comparisons, measured as PPO is."""
    bundle, learnt = _bundle(run), _comparisons(recipe, run)
    yardstick = Yardstick(bundle, recipe.measured(), recipe.ppo, run.seed)
    own = [row for row, kinds in enumerate(learnt.kinds) if set(kinds) <= set(SFT_KINDS)]
    settings: list[tuple[Baseline, float]] = [("dpo", 0.1), ("preferred", 0.0)]
    for loss, beta in settings:
        used = learnt if loss == "dpo" else learnt.select(torch.tensor(own).numpy())
        sources, summaries = encode_preferences(bundle.tokenizer, used, bundle.shape)
        policy = tune_on_comparisons(
            bundle.encoder, bundle.sft, sources, summaries, loss, beta=beta, seed=run.seed,
            learning_rate=recipe.ppo.learning_rate, batch_size=recipe.reward.batch_size,
        )  # fmt: skip
        measured, _ = yardstick.measure(policy)
        row: Row = {"baseline": loss, "beta": beta if loss == "dpo" else None, "seed": run.seed, **measured}
        _append(rows, "baselines without a reward model", [row])


def best_of_n(recipe: Recipe, run: LocalRun, rows: Path) -> None:
    """The supervised policy's best of n on the texts that PPO is measured on."""
    bundle, pairs = _bundle(run), recipe.measured()
    drawn = sample(
        bundle, bundle.sft, [text for text, _ in pairs], n=recipe.samples, seed=run.seed,
        temperature=recipe.ppo.temperature,
    )  # fmt: skip
    _append(rows, BEST_TABLE, best_of_n_rows(pairs, drawn))


def figures(recipe: Recipe, run: LocalRun, rows: Sequence[Path]) -> None:
    """Measure the checkpoint on the test split and store it with the rows of the other steps, new or stored before."""
    given: dict[str, list[Row]] = {}
    for path in rows:
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            given.setdefault(row.pop("table"), []).append(row)
    found = evaluate_method(
        Checkpoint(WEIGHTS), run, None, texts=recipe.texts, samples=recipe.samples, comparisons=10**6, trainings=given
    )
    found.command = "python -m models.summarize_feedback.ship"
    Checkpoint(WEIGHTS).write_figures(found)


def _bundle(run: LocalRun) -> Bundle:
    return read_bundle(Checkpoint(WEIGHTS)).to(torch.device(run.device))


def _comparisons(recipe: Recipe, run: LocalRun) -> Preferences:
    return gather_preferences(_bundle(run), pairs_of(recipe.feedback()), recipe.reward, run)[0]


def _append(path: Path, table: str, rows: Sequence[Row]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps({"table": table, **row}) + "\n" for row in rows)


_STEPS = {"curve": learning_curve, "baselines": baselines, "best-of-n": best_of_n}


def main() -> None:
    """Run one step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=[*_STEPS, "sft", "reward", "ppo", "figures"])
    parser.add_argument("--recipe", choices=list(RECIPES), default="cpu")
    parser.add_argument("--rows", type=Path, nargs="*", default=[Path("rows.jsonl")])
    parser.add_argument("--folder", type=Path, default=Path("runs/summarize-feedback"))
    parser.add_argument("--device", default="auto")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", action="store_true", help="put the tuned policy into weights/")
    for name in ("epochs", "dropout", "beta", "learning-rate"):
        parser.add_argument(f"--{name}", type=float, help="instead of the recipe's")
    for name in ("comparisons", "iterations"):
        parser.add_argument(f"--{name}", type=int, help="instead of the recipe's")
    arguments = parser.parse_args()
    device = pick_device(arguments.device)
    torch.set_float32_matmul_precision("high")  # TF32 where there is a GPU
    recipe = _changed(RECIPES[arguments.recipe], arguments)
    name = f"{arguments.step}-{recipe.ppo.beta}-{recipe.ppo.learning_rate}-{arguments.seed}"
    run = LocalRun(
        arguments.folder / name, seed=arguments.seed, device=device.type, log=print,
        report=lambda fraction, stage, text: print(stage, text, flush=True),
    )  # fmt: skip
    if arguments.step in ("sft", "reward"):
        train(arguments.step, recipe, run)
    elif arguments.step == "ppo":
        tune(recipe, run, arguments.rows[0], arguments.keep)
    elif arguments.step == "figures":
        figures(recipe, run, arguments.rows)
    else:
        _STEPS[arguments.step](recipe, run, arguments.rows[0])


def _changed(recipe: Recipe, arguments: argparse.Namespace) -> Recipe:
    return replace(
        recipe,
        sft=_with(recipe.sft, epochs=arguments.epochs, dropout=arguments.dropout),
        reward=_with(
            recipe.reward, simulated=arguments.comparisons,
            learning_rate=arguments.learning_rate if arguments.step != "ppo" else None,
        ),
        ppo=_with(
            recipe.ppo, beta=arguments.beta, iterations=arguments.iterations,
            learning_rate=arguments.learning_rate if arguments.step == "ppo" else None,
        ),
    )  # fmt: skip


def _with(options: OptionsT, **changes: object) -> OptionsT:
    return options.model_copy(update={name: value for name, value in changes.items() if value is not None})


if __name__ == "__main__":
    main()
