"""Trains the encoders of the proof and puts them into ``weights/proof``; ``evaluate`` measures what lies there.

``python -m models.align_uniform.baselines --out FOLDER [NAME ...]``: about a minute each on one core, resumable. These
networks are far too small for a GPU: ``--processes 4 --threads 3`` trains twelve at a time on one, each on a stream of
its own, and ``--longer 5`` gives each five times its steps.
"""

from __future__ import annotations

import argparse
import multiprocessing
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from contextlib import nullcontext
from pathlib import Path

import torch
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn import functional as F

from models.align_uniform.data import fixed_pairs, held_out_metrics, image_tensor
from models.align_uniform.network import EmbeddingNetwork
from models.align_uniform.recipes import HELD_OUT, RECIPES, SPEC, Recipe, training_data
from models.align_uniform.shipping import FOLDER, ship
from models.align_uniform.train import Problem, fit, objective, picture_view, policy
from models.core.dataset import Dataset
from models.core.devices import pick_device
from models.core.run import LocalRun, Run

_seeding = threading.Lock()


def initial(recipe: Recipe) -> EmbeddingNetwork:
    """The network before its training; the same whatever other threads draw."""
    with _seeding:
        torch.manual_seed(recipe.seed)
        return EmbeddingNetwork(recipe.config, SPEC.channels)


def train_encoder(recipe: Recipe, dataset: Dataset, run: Run, steps: int) -> EmbeddingNetwork:
    """Train the encoder of one recipe for ``steps`` steps; the last 512 pictures are only measured.

    Raises:
        Cancelled: the user asked for it.
    """
    config, network = recipe.config, initial(recipe)
    every = image_tensor(dataset, SPEC)
    images = every[:-HELD_OUT]
    measure = held_out_metrics(network, fixed_pairs(every[-HELD_OUT:], policy(config)), config, run.device)
    view = picture_view(images, config, run.device)
    if recipe.supervised:
        labels = torch.from_numpy(dataset.require_labels()).to(run.device)
        classifier = nn.Sequential(network.encoder, nn.Linear(network.encoder.features, int(labels.max()) + 1))

        def classify(x: Tensor, y: Tensor, indices: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            return F.cross_entropy(classifier(torch.cat([x, y])), labels[indices].repeat(2)), {}

        problem = Problem(classifier, len(images), view, classify, lambda: {}, steps)
    else:

        def contrast(x: Tensor, y: Tensor, _: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            first, second = network(torch.cat([x, y])).chunk(2)
            return objective(first, second, config)

        problem = Problem(network, len(images), view, contrast, measure, steps)
    fit(problem, config, run)
    return network.eval()


def train_together(names: list[str], out: Path, longer: int, device: str) -> list[tuple[str, bytes, float, str]]:
    """Train some encoders at the same time, a thread and (on a GPU) a stream each.

    Returns:
        Of each its name, its weights as safetensors, the seconds and the last line of its log.
    """
    torch.set_num_threads(1)
    dataset = training_data(HELD_OUT)

    def one(name: str) -> tuple[str, bytes, float, str]:
        lines: list[str] = []
        run = LocalRun(out / name, seed=RECIPES[name].seed, device=device, log=lines.append)
        started = time.monotonic()
        with torch.cuda.stream(torch.cuda.Stream()) if device.startswith("cuda") else nullcontext():  # type: ignore[no-untyped-call]
            network = train_encoder(RECIPES[name], dataset, run, longer * RECIPES[name].steps).cpu()
        weights = {key: tensor.contiguous() for key, tensor in network.state_dict().items()}
        return name, save(weights), time.monotonic() - started, lines[-1]

    with ThreadPoolExecutor(len(names)) as pool:
        return list(pool.map(one, names))


def train_all(
    names: list[str], out: Path, *, longer: int, device: str, processes: int, threads: int
) -> Iterator[tuple[str, EmbeddingNetwork, float, str]]:
    """Train encoders in ``processes`` processes of ``threads`` threads; each as soon as it is there.

    Yields:
        Name, network, seconds of its training, the last line of its log.
    """
    spawning = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
    with ProcessPoolExecutor(processes, mp_context=spawning) as pool:
        groups = [names[start : start + threads] for start in range(0, len(names), threads)]
        waiting = [pool.submit(train_together, group, out, longer, device) for group in groups]
        for done in as_completed(waiting):
            for name, weights, seconds, line in done.result():
                network = EmbeddingNetwork(RECIPES[name].config, SPEC.channels)
                network.load_state_dict(load(weights))
                yield name, network, seconds, line


def main() -> None:
    """Train the encoders named on the command line, or all."""
    parser = argparse.ArgumentParser(description="train the encoders of the proof")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(RECIPES)}; all when absent")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs, kept for resuming")
    parser.add_argument("--longer", type=int, default=1, help="times the steps of each recipe")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1, help="encoders that a process trains at the same time")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the encoders are put")
    given = parser.parse_args()
    unknown = sorted(set(given.names) - RECIPES.keys())
    if unknown:
        parser.error(f"no such encoder: {', '.join(unknown)}")
    device = pick_device(given.device).type
    trained = train_all(
        given.names or list(RECIPES),
        given.out,
        longer=given.longer,
        device=device,
        processes=given.processes,
        threads=given.threads,
    )
    for name, network, seconds, line in trained:
        steps = given.longer * RECIPES[name].steps
        ship(RECIPES[name], network, steps=steps, seconds=seconds, device=device, folder=given.folder)
        print(f"{name}: {seconds:.0f} s, {line}", flush=True)


if __name__ == "__main__":
    main()
