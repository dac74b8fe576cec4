"""Training of a version: the judge, the classifier of noisy pictures and the denoiser, and what they leave behind."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from models.core.dataset import Dataset
from models.core.devices import pick_device
from models.core.inputs import ImageSpec
from models.core.method import MethodError
from models.core.run import Run
from models.guided_diffusion.fitting import Curves, fit
from models.guided_diffusion.judge import Judge
from models.guided_diffusion.learners import Denoiser, Guide, JudgeLearner, Learner, Parts
from models.guided_diffusion.network import build_classifier, build_unet
from models.guided_diffusion.process import Process
from models.guided_diffusion.schedule import Schedule
from models.guided_diffusion.schema import Config

HELD_OUT_LEVELS = (0.0, 0.25, 0.5, 0.75)


@dataclass(frozen=True)
class Material:
    """Training data: uint8 ``(N, C, H, W)``, int64 ``(N,)``, and a part of both that nothing is trained on."""

    images: Tensor
    labels: Tensor
    held_images: Tensor
    held_labels: Tensor
    class_names: list[str]

    @property
    def channels(self) -> Literal[1, 3]:
        """Grey or colour."""
        return 3 if self.images.shape[1] == 3 else 1


def prepare(dataset: Dataset, config: Config, seed: int) -> Material:
    """Fit the pictures to the configuration and hold out as many as it says, at most a tenth.

    Raises:
        MethodError: no pictures, no labels, fewer than two classes, or fewer than 20 pictures.
    """
    if dataset.kind != "images":
        raise MethodError(f"dataset: holds {dataset.kind}; the denoiser is trained on images")
    if dataset.labels is None:
        raise MethodError("dataset: has no labels; the classifier that guides is trained on them")
    if len(dataset) < 20 or len(np.unique(dataset.labels)) < 2:
        raise MethodError("dataset: at least 20 pictures of two classes are needed")
    images = torch.from_numpy(np.array(dataset.images(spec_of(dataset, config)))).permute(0, 3, 1, 2)
    labels = torch.from_numpy(np.array(dataset.require_labels()))
    count = min(config.held_out, len(images) // 10)
    if not count:
        return Material(images, labels, images[:0], labels[:0], list(dataset.class_names))
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    held, learnt = order[:count], order[count:]
    return Material(images[learnt], labels[learnt], images[held], labels[held], list(dataset.class_names))


def spec_of(dataset: Dataset, config: Config) -> ImageSpec:
    """What pictures are fitted to: the configuration's size, and its channels or the data set's."""
    if config.channels == "auto":
        channels = 3 if any(np.ndim(image) == 3 and np.shape(image)[2] >= 3 for image in dataset.inputs[:100]) else 1
    else:
        channels = 3 if config.channels == "colour" else 1
    return ImageSpec(height=config.image_size, width=config.image_size, channels=cast(Literal[1, 3], channels))


def make_learners(config: Config, material: Material, seed: int, device: torch.device) -> list[Learner]:
    """The stages of the training in order, freshly initialised from ``seed``."""
    process = Process(Schedule.make(config.schedule, config.timesteps), device)
    channels, classes = material.channels, len(material.class_names)
    learners: list[Learner] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if config.target != "classifier":
            unet, average = (build_unet(config, channels, classes).to(device) for _ in range(2))
            learners.append(Denoiser(unet, average, config, process))
        if config.target != "diffusion":
            learners.append(Guide(build_classifier(config, channels, classes).to(device), config, process))
        learners.append(JudgeLearner(Judge(channels, classes).to(device), config, process))
    return learners


def learn(config: Config, material: Material, run: Run) -> tuple[Sequence[Learner], Curves]:
    """Train every stage.

    Raises:
        MethodError: the training diverged, or it is to be compiled and there is no compiler.
        Cancelled: the user asked for it.
    """
    learners = make_learners(config, material, run.seed, pick_device(run.device))
    with _compiler_needed() if config.compile else nullcontext():
        curves = fit(
            learners,
            material.images,
            material.labels,
            run,
            flip=config.flip,
            held_out=lambda learner: held_out_metrics(learner, material),
        )
    return learners, curves


@contextmanager
def _compiler_needed() -> Iterator[None]:
    from torch._dynamo.exc import BackendCompilerFailed

    try:
        yield
    except BackendCompilerFailed as error:
        raise MethodError(f"compile: {str(error).splitlines()[0]}; false trains without") from error


@torch.no_grad()
def held_out_metrics(learner: Learner, material: Material) -> Parts:
    """The denoiser's error or a classifier's accuracies on the held-out pictures, if any, with fixed noise."""
    if not len(material.held_images):
        return {}
    start = (material.held_images.to(learner.device).float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)
    labels = material.held_labels.to(learner.device)
    noise = torch.randn(start.shape, generator=torch.Generator().manual_seed(0)).to(start.device)
    total = len(learner.process)
    learner.kept.eval()
    if isinstance(learner, Denoiser):
        t = (torch.arange(len(start), device=start.device) * 997) % total
        output = learner.average(learner.process.noised(start, t, noise), t, labels)
        return {"mse": F.mse_loss(output[:, : start.shape[1]], noise).item()}
    if isinstance(learner, JudgeLearner):
        return {"accuracy": (learner.module(start).argmax(dim=1) == labels).float().mean().item()}
    found = {}
    for level in HELD_OUT_LEVELS:
        t = torch.full((len(start),), int(level * total), device=start.device)
        logits = learner.module(learner.process.noised(start, t, noise), t)
        found[f"accuracy_t{int(level * 100)}"] = (logits.argmax(dim=1) == labels).float().mean().item()
    return found
