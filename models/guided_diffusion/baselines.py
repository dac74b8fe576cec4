"""What the proof trains to compare with: a guide that knows clean pictures only, and a denoiser of the mean error.

Both are trained as the version was, and kept in a folder, so that what is there is not trained again.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from models.core.checkpoint import CONFIG, Checkpoint
from models.core.dataset import Dataset
from models.core.devices import pick_device
from models.core.run import LocalRun, Run
from models.guided_diffusion.fitting import fit
from models.guided_diffusion.learners import Guide
from models.guided_diffusion.network import NoisyClassifier, build_classifier
from models.guided_diffusion.process import Process
from models.guided_diffusion.schedule import Schedule
from models.guided_diffusion.schema import Config
from models.guided_diffusion.train import prepare
from models.guided_diffusion.versions import Networks, open_networks, write_version


class CleanGuide(Guide):
    """The guide's network and training, on pictures without noise: it is told step 0 always."""

    def batch(self, start: Tensor, labels: Tensor, random: torch.Generator) -> Sequence[Tensor]:
        """Clean pictures, steps 0 and labels."""
        return start, torch.zeros(len(start), dtype=torch.int64, device=start.device), labels


def clean_guide(config: Config, train: Dataset, run: Run) -> NoisyClassifier:
    """A classifier of clean pictures trained as ``config`` says of the guide, or read from ``run.scratch``.

    Raises:
        Cancelled: the user asked for it.
    """
    device = pick_device(run.device)
    path = run.scratch / "clean-guide.safetensors"
    material = prepare(train, config, run.seed)
    network = build_classifier(config, material.channels, len(material.class_names)).to(device)
    if not path.exists():
        learner = CleanGuide(network, config, Process(Schedule.make(config.schedule, config.timesteps), device))
        inner = _inner(run, run.scratch / "clean-guide")
        fit([learner], material.images, material.labels, inner, flip=config.flip, held_out=lambda learner: {})
        save_file({name: value.cpu().contiguous() for name, value in network.state_dict().items()}, path)
    network.load_state_dict(load_file(path, device=str(device)))
    return network.eval().requires_grad_(requires_grad=False)


def simple_twin(config: Config, train: Dataset, run: Run) -> Networks:
    """A denoiser trained as ``config`` says, but by L_simple alone, its variance fixed, or read from ``run.scratch``.

    Raises:
        Cancelled: the user asked for it.
    """
    changed = config.model_copy(update={"target": "diffusion", "learned_variance": False, "judge_steps": 1})
    folder = run.scratch / "simple-twin"
    written = folder / "scratch" / "checkpoint"
    if not (written / CONFIG).exists():
        write_version(train, changed, _inner(run, folder))
    return open_networks(Checkpoint(written), pick_device(run.device))


def _inner(run: Run, folder: Path) -> LocalRun:
    """A run within ``run`` that has a resume point of its own."""
    return LocalRun(
        folder,
        seed=run.seed,
        device=run.device,
        report=lambda share, stage, message: run.progress(0.0, f"baseline, {stage}", message),
        log=run.log,
    )
