"""A version: the networks that a checkpoint holds, and the writing of one from a training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from models.core.checkpoint import Checkpoint, CheckpointConfig, fill
from models.core.dataset import Dataset
from models.core.devices import pick_device
from models.core.figures import Figure, Figures
from models.core.inputs import ClassSpec
from models.core.method import MethodError
from models.core.run import Run
from models.guided_diffusion.fitting import Curves
from models.guided_diffusion.judge import Judge
from models.guided_diffusion.network import build_classifier, build_unet
from models.guided_diffusion.pictures import draw_samples
from models.guided_diffusion.sampler import Modulated
from models.guided_diffusion.schedule import Schedule
from models.guided_diffusion.schema import Config, Params
from models.guided_diffusion.train import Material, learn, prepare

SHIPPED = Path(__file__).parent / "weights"
Classify = Callable[[Tensor, Tensor], Tensor]
"""From noisy pictures ``(B, C, H, W)`` and their steps ``(B,)`` to logits ``(B, classes)``."""


@dataclass(frozen=True, eq=False)
class Networks:
    """What a version samples with.

    Attributes:
        classifier: of noisy pictures; None where none was trained.
        eta: of requests that name none.
        conditional: the denoiser knows the version's classes; otherwise it is always told the null label.
        shape: ``(C, H, W)`` of a picture.
    """

    denoiser: Modulated
    classifier: Classify | None
    judge: Judge
    schedule: Schedule
    shape: tuple[int, int, int]
    class_names: list[str]
    eta: float
    conditional: bool
    learned_variance: bool
    device: torch.device


def open_networks(checkpoint: Checkpoint, device: torch.device) -> Networks:
    """Build the networks of ``checkpoint``.

    Raises:
        CheckpointError: a tensor is missing, left over or of another shape.
    """
    config = Config.model_validate(checkpoint.config.config)
    facts, names = checkpoint.config.outputs, checkpoint.config.class_names
    tensors = checkpoint.tensors()
    channels = int(facts["channels"])
    denoiser = build_unet(config, channels, int(facts["denoiser_classes"]))
    judge = Judge(channels, len(names))
    modules: dict[str, nn.Module] = {"denoiser": denoiser, "judge": judge}
    classifier = None
    if any(name.startswith("classifier.") for name in tensors):
        classifier = modules["classifier"] = build_classifier(config, channels, len(names))
    fill(nn.ModuleDict(modules), tensors, checkpoint.folder.name)
    for module in modules.values():
        module.to(device).eval().requires_grad_(requires_grad=False)
    return Networks(
        denoiser,
        classifier,
        judge,
        Schedule.make(config.schedule, config.timesteps),
        (channels, config.image_size, config.image_size),
        names,
        config.eta,
        bool(facts["conditional"]),
        config.learned_variance,
        device,
    )


def write_version(dataset: Dataset, config: Config, run: Run) -> Checkpoint:
    """Train and write a checkpoint; weights are kept in half precision, the denoiser's are the averaged ones.

    Artifact: ``samples.png``, eight pictures a class.

    Raises:
        MethodError: the data cannot be trained on, or ``target`` is ``classifier`` and the shipped denoiser draws
            other pictures.
        Cancelled: the user asked for it.
    """
    material = prepare(dataset, config, run.seed)
    base = _shipped_denoiser(config, material) if config.target == "classifier" else {}
    learners, curves = learn(config, material, run)
    trained = {learner.name: learner.kept for learner in learners}
    tensors = {
        f"{prefix}.{name}": value.half() if value.is_floating_point() else value
        for prefix, module in trained.items()
        for name, value in module.state_dict().items()
    }
    classes = int(Checkpoint(SHIPPED).config.outputs["denoiser_classes"]) if base else len(material.class_names)
    checkpoint = Checkpoint.write(
        run.scratch / "checkpoint",
        CheckpointConfig(
            method="guided-diffusion",
            input=ClassSpec(),
            config=config.model_dump(mode="json"),
            class_names=material.class_names,
            outputs={
                "height": config.image_size,
                "width": config.image_size,
                "channels": material.channels,
                "denoiser_classes": classes,
                "conditional": not base,
            },
            data_sha256=dataset.sha256,
            seed=run.seed,
        ),
        {**tensors, **base},
        _figures(dataset, curves),
    )
    _draw_samples(checkpoint, run)
    return checkpoint


def _draw_samples(checkpoint: Checkpoint, run: Run) -> None:
    from models.guided_diffusion.method import GuidedDiffusion

    method = GuidedDiffusion.load(checkpoint, pick_device(run.device))
    steps = min(25, len(method.networks.schedule))
    scale = 0.0 if method.networks.classifier is None else 2.0
    draw_samples(method, Params(steps=steps, guidance_scale=scale), run.artifact("samples.png", "image/png"), run)


def _shipped_denoiser(config: Config, material: Material) -> dict[str, Tensor]:
    shipped = Checkpoint(SHIPPED)
    theirs = Config.model_validate(shipped.config.config)
    for field in (
        "image_size",
        "width",
        "multipliers",
        "depth",
        "attention",
        "head_channels",
        "groups",
        "timesteps",
        "schedule",
        "learned_variance",
    ):
        if getattr(config, field) != getattr(theirs, field):
            raise MethodError(f"{field}: the shipped denoiser has {getattr(theirs, field)}")
    if material.channels != shipped.config.outputs["channels"]:
        raise MethodError(f"channels: the shipped denoiser has {shipped.config.outputs['channels']}")
    return {name: value for name, value in shipped.tensors().items() if name.startswith("denoiser.")}


def _figures(dataset: Dataset, curves: Curves) -> Figures:
    held_out = {name: points[-1][1] for name, points in curves.items() if "held_out" in name}
    return Figures(
        figures=[
            Figure(name=name.replace("_", " "), value=value, setting=dataset.name) for name, value in held_out.items()
        ],
        data_sha256={dataset.name or "training set": dataset.sha256},
        command="train",
    )
