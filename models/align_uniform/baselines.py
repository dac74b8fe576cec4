"""The encoders of the proof: the method, SimCLR, controls and a supervised encoder, all trained alike.

``python -m models.align_uniform.baselines --out FOLDER [NAME ...]`` trains them (each about a minute on one core,
resumable) and writes ``weights/proof``; ``evaluate`` measures what lies there.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn import functional as F

from models.align_uniform.data import fixed_pairs, held_out_metrics, image_tensor
from models.align_uniform.network import EmbeddingNetwork
from models.align_uniform.schema import Config
from models.align_uniform.train import Problem, fit, objective, picture_view, policy
from models.core import sources
from models.core.checkpoint import CheckpointError
from models.core.dataset import Dataset
from models.core.inputs import ImageSpec
from models.core.run import LocalRun, Run

FOLDER = Path(__file__).parent / "weights" / "proof"
DATA = "fashion-mnist"
TRAIN_SAMPLES = 20_000
HELD_OUT = 512
STEPS = 624
SPEC = ImageSpec(height=28, width=28, channels=1)
BASE = {"width": 16, "feat_dim": 64}
SIMCLR: dict[str, Any] = {"align_weight": 0.0, "uniform_weight": 0.0, "contrastive_weight": 1.0, "temperature": 0.2}


@dataclass(frozen=True)
class Recipe:
    """One encoder of the proof.

    Attributes:
        group: runs that differ by seed only.
        overrides: of the proof's base configuration.
        supervised: trained by cross-entropy on the labels of the same pictures and views.
    """

    group: str
    seed: int
    overrides: dict[str, Any] = field(default_factory=dict)
    supervised: bool = False

    @property
    def name(self) -> str:
        """File name of the encoder."""
        return f"{self.group}-s{self.seed}"

    @property
    def config(self) -> Config:
        """The full configuration."""
        return Config(**{**BASE, **self.overrides})


def _recipes() -> dict[str, Recipe]:
    found: list[Recipe] = []

    def add(group: str, seeds: int, **overrides: Any) -> None:
        found.extend(Recipe(group, seed, overrides) for seed in range(seeds))

    add("align-uniform", 4)
    for temperature, seeds in ((0.1, 1), (0.2, 4), (0.5, 1), (1.0, 1)):
        add(f"simclr-tau-{temperature:g}", seeds, **{**SIMCLR, "temperature": temperature})
    found.extend(Recipe("supervised", seed, supervised=True) for seed in range(2))
    add("align-only", 2, uniform_weight=0.0)
    add("uniform-only", 2, align_weight=0.0)
    for ratio, seeds in ((0.1, 1), (0.25, 2), (0.5, 2), (2.0, 2), (4.0, 2), (10.0, 1)):
        add(f"ratio-{ratio:g}", seeds, align_weight=min(1.0, 1 / ratio), uniform_weight=min(1.0, ratio))
    add("combined", 1, contrastive_weight=1.0, temperature=0.2)
    for size in (32, 64):
        add(f"align-uniform-batch-{size}", 2, batch_size=size)
        add(f"simclr-batch-{size}", 2, **SIMCLR, batch_size=size)
    add("circle", 1, feat_dim=2)
    return {recipe.name: recipe for recipe in found}


RECIPES = _recipes()


class Shipped(BaseModel):
    """One entry of ``weights/proof/index.json``."""

    group: str
    seed: int
    config: dict[str, Any]
    supervised: bool
    steps: int
    seconds: float
    sha256: str


def training_data() -> Dataset:
    """The 20,000 pictures that every encoder of the proof is trained on.

    Raises:
        DataUnavailableError: Fashion-MNIST cannot be had.
    """
    return sources.load(DATA, "train").select(np.arange(TRAIN_SAMPLES))


def train_encoder(recipe: Recipe, dataset: Dataset, run: Run, steps: int = STEPS) -> EmbeddingNetwork:
    """Train the encoder of one recipe for ``steps`` steps; the last 512 pictures are only measured.

    Raises:
        Cancelled: the user asked for it.
    """
    config = recipe.config
    torch.manual_seed(run.seed)
    network = EmbeddingNetwork(config, SPEC.channels)
    every = image_tensor(dataset, SPEC)
    images, labels = every[:-HELD_OUT], torch.from_numpy(dataset.require_labels())
    measure = held_out_metrics(network, fixed_pairs(every[-HELD_OUT:], policy(config)), config, run.device)
    view = picture_view(images, config, run.device)
    if recipe.supervised:
        classifier = nn.Sequential(network.encoder, nn.Linear(network.encoder.features, int(labels.max()) + 1))

        def classify(x: Tensor, y: Tensor, indices: Tensor) -> tuple[Tensor, dict[str, float]]:
            loss = F.cross_entropy(classifier(torch.cat([x, y])), labels[indices].repeat(2).to(x.device))
            return loss, {}

        problem = Problem(classifier, len(images), view, classify, measure, steps)
    else:

        def contrast(x: Tensor, y: Tensor, _: Tensor) -> tuple[Tensor, dict[str, float]]:
            first, second = network(torch.cat([x, y])).chunk(2)
            return objective(first, second, config)

        problem = Problem(network, len(images), view, contrast, measure, steps)
    fit(problem, config, run)
    return network.eval()


def ship(recipe: Recipe, network: EmbeddingNetwork, seconds: float, folder: Path = FOLDER) -> None:
    """Add an encoder to ``weights/proof`` in half precision; the head only where it was trained."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = {
        name: (tensor.half() if tensor.is_floating_point() else tensor).contiguous()
        for name, tensor in network.state_dict().items()
        if not name.endswith("_axes") and not (recipe.supervised and name.startswith("head"))
    }
    raw = save(kept)
    (folder / f"{recipe.name}.safetensors").write_bytes(raw)
    index = read_index(folder) if (folder / "index.json").exists() else {}
    index[recipe.name] = Shipped(
        group=recipe.group,
        seed=recipe.seed,
        config=recipe.config.model_dump(),
        supervised=recipe.supervised,
        steps=STEPS,
        seconds=round(seconds, 1),
        sha256=hashlib.sha256(raw).hexdigest(),
    )
    text = json.dumps({name: entry.model_dump() for name, entry in sorted(index.items())}, indent=1)
    (folder / "index.json").write_text(text + "\n", encoding="utf-8")


def read_index(folder: Path = FOLDER) -> dict[str, Shipped]:
    """The encoders that ship.

    Raises:
        CheckpointError: there is no index.
    """
    path = folder / "index.json"
    if not path.exists():
        raise CheckpointError("weights/proof/index.json is missing: the proof has no encoders")
    return {name: Shipped.model_validate(entry) for name, entry in json.loads(path.read_bytes()).items()}


def open_encoder(name: str, entry: Shipped, folder: Path = FOLDER) -> EmbeddingNetwork:
    """One encoder that ships, in evaluation mode.

    Raises:
        CheckpointError: its file is missing, altered or does not fit.
    """
    path = folder / f"{name}.safetensors"
    if not path.exists():
        raise CheckpointError(f"weights/proof/{path.name} is missing")
    raw = path.read_bytes()
    if hashlib.sha256(raw).hexdigest() != entry.sha256:
        raise CheckpointError(f"weights/proof/{path.name}: its SHA-256 is not the one in index.json")
    network = EmbeddingNetwork(Config.model_validate(entry.config), SPEC.channels)
    expected = network.state_dict()
    tensors = {key: tensor.to(expected[key].dtype) for key, tensor in load(raw).items() if key in expected}
    unset = network.load_state_dict(tensors, strict=False).missing_keys
    optional = ("penultimate_axes", "projection_axes", *(("head",) if entry.supervised else ()))
    missing = [key for key in unset if not key.startswith(optional)]
    if missing:
        raise CheckpointError(f"weights/proof/{path.name} lacks {missing}")
    return network.eval()


def main(report: Callable[[str], None] = print) -> None:
    """Train the encoders named on the command line, or all."""
    parser = argparse.ArgumentParser(description="train the encoders of the proof")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(RECIPES)}; all when absent")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs, kept for resuming")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.names) - RECIPES.keys())
    if unknown:
        parser.error(f"no such encoder: {', '.join(unknown)}")
    torch.set_num_threads(1)
    dataset = sources.load(DATA, "train").select(np.arange(TRAIN_SAMPLES + HELD_OUT))
    for name in arguments.names or RECIPES:
        recipe = RECIPES[name]
        lines: list[str] = []
        run = LocalRun(arguments.out / name, seed=recipe.seed, log=lines.append)
        started = time.process_time()
        network = train_encoder(recipe, dataset, run)
        seconds = time.process_time() - started
        ship(recipe, network, seconds)
        report(f"{name}: {seconds:.0f} CPU s, {lines[-1] if lines else 'done'}")


if __name__ == "__main__":
    main()
