"""A small version with all three stages, trained once on 300 real pairs."""

import json
from pathlib import Path

import pytest
import torch

from models.core.dataset import Dataset
from models.core.run import LocalRun
from models.summarize_feedback import train
from models.summarize_feedback.bundle import read_bundle
from models.summarize_feedback.schema import Config, PolicyOptions, RewardOptions, Sizes, SupervisedOptions

SIZES = Sizes(vocabulary=512, width=32, heads=2, encoder_layers=1, decoder_layers=1, source_tokens=48)


@pytest.fixture(scope="session")
def pairs():
    path = Path(__file__).parents[2] / "data" / "package-descriptions-300.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return Dataset("pairs", [(row["description"], row["synopsis"]) for row in rows], name="package-descriptions-300")


@pytest.fixture(scope="session")
def trained(pairs, tmp_path_factory):
    """Checkpoints of the three stages by name, each started from the one before."""
    torch.set_num_threads(1)
    folder, found = tmp_path_factory.mktemp("stages"), {}
    configs = {
        "sft": Config(sizes=SIZES, sft=SupervisedOptions(max_steps=60, learning_rate=3e-3, batch_size=32)),
        "reward": Config(stage="reward", reward=RewardOptions(simulated=200, comparisons="simulated")),
        "ppo": Config(stage="ppo", ppo=PolicyOptions(iterations=4, batch_size=32)),
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, config in configs.items():
            found[name] = train.train_stage(pairs, config, LocalRun(folder / name, seed=1))
            patch.setattr(train, "WEIGHTS", found[name].folder)
    return found


@pytest.fixture(scope="session")
def bundle(trained):
    return read_bundle(trained["ppo"])
