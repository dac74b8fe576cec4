"""Classifiers of pictures and vectors that standardise their own inputs."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any, Literal, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.core.checkpoint import Checkpoint, CheckpointError
from models.core.dataset import Dataset
from models.core.inputs import ImageSpec, InputSpec, VectorSpec
from models.core.method import MethodError
from models.core.text import TextTransform

NetworkT = TypeVar("NetworkT", bound="Standardised")
Architecture = Literal["mlp", "small-cnn", "two-conv", "wrn-10-2", "wrn-28-10"]


class Standardised(nn.Module):
    """Logits ``(B, classes)`` by ``body`` of standardised inputs, uint8 ``(B, C, H, W)`` or float32 ``(B, D)``.

    Args:
        mean, std: per channel ``(C, 1, 1)`` of pictures or per feature ``(D,)`` of vectors, in input units.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, body: nn.Module, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        self.body = body

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.body((inputs.float() - self.mean) / self.std)
        return logits


class Classifier(Standardised):
    """One of the networks of :data:`Architecture`.

    Args:
        shape: ``(C, H, W)`` or ``(D,)``.

    Attributes:
        text: turns texts into the vectors; of trained networks of texts only.

    Raises:
        ValueError: the architecture takes pictures, or larger ones.
    """

    text: TextTransform | None

    def __init__(
        self, architecture: Architecture, shape: tuple[int, ...], classes: int, mean: Tensor, std: Tensor
    ) -> None:
        super().__init__(_body(architecture, shape, classes), mean, std)
        self.text = None


def _body(architecture: Architecture, shape: tuple[int, ...], classes: int) -> nn.Module:
    if architecture == "mlp":
        return _mlp(prod(shape), classes)
    if len(shape) != 3:
        raise ValueError(f"encoder: {architecture} takes pictures")
    if architecture == "small-cnn":
        return _small_cnn(shape, classes)
    if architecture == "two-conv":
        return _two_conv(shape, classes)
    depth, width = (int(number) for number in architecture.split("-")[1:])
    return WideResNet(shape[0], classes, depth, width, stem_stride=2 if depth == 10 else 1)


def _mlp(size: int, classes: int) -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(size, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, classes)
    )


def _small_cnn(shape: tuple[int, ...], classes: int) -> nn.Module:
    side = [min(7, -(-extent // 4)) for extent in shape[1:]]
    return nn.Sequential(
        nn.Conv2d(shape[0], 16, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d((side[0], side[1])) if max(shape[1:]) > 28 else nn.Identity(),
        nn.Flatten(),
        nn.Linear(32 * side[0] * side[1], 256),
        nn.ReLU(),
        nn.Linear(256, classes),
    )


def _two_conv(shape: tuple[int, ...], classes: int) -> nn.Module:
    """4,795,914 weights on 28 x 28 grey pictures with ten classes: the size that Li et al. (2020), Fig. 1, state."""
    rows, columns = ((extent - 4) // 2 for extent in shape[1:])
    if min(rows, columns) < 1:
        raise ValueError("encoder: two-conv takes pictures of 6 x 6 pixels and more")
    return nn.Sequential(
        nn.Conv2d(shape[0], 64, 3),
        nn.ReLU(),
        nn.Conv2d(64, 128, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(128 * rows * columns, 256),
        nn.ReLU(),
        nn.Linear(256, classes),
    )


class _Block(nn.Module):
    """Pre-activation block: normalise, activate, convolve, twice; a 1 x 1 shortcut where the shape changes."""

    def __init__(self, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(inner), nn.BatchNorm2d(outer)
        self.conv1 = nn.Conv2d(inner, outer, 3, stride=stride, padding=1, bias=False)
        self.conv2 = nn.Conv2d(outer, outer, 3, padding=1, bias=False)
        changes = stride != 1 or inner != outer
        self.shortcut = nn.Conv2d(inner, outer, 1, stride=stride, bias=False) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        """``(B, inner, H, W)`` to ``(B, outer, H / stride, W / stride)``."""
        active = F.relu(self.norm1(x))
        through = x if self.shortcut is None else self.shortcut(active)
        changed: Tensor = self.conv2(F.relu(self.norm2(self.conv1(active))))
        return changed + through


class WideResNet(nn.Module):
    """Wide residual network with ``6 n + 4`` layers and widths 16, 32, 64 times ``width`` (Zagoruyko, BMVC 2016).

    ``stem_stride`` 2 halves the picture at once, which a CPU needs.
    """

    def __init__(self, channels: int, classes: int, depth: int, width: int, stem_stride: int = 1) -> None:
        super().__init__()
        blocks: list[nn.Module] = [nn.Conv2d(channels, 16, 3, stride=stem_stride, padding=1, bias=False)]
        inner = 16
        for group, outer in enumerate((16 * width, 32 * width, 64 * width)):
            for index in range((depth - 4) // 6):
                blocks.append(_Block(inner, outer, 2 if index == 0 and group > 0 else 1))
                inner = outer
        self.blocks = nn.Sequential(*blocks)
        self.norm, self.head = nn.BatchNorm2d(inner), nn.Linear(inner, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Logits ``(B, classes)``."""
        logits: Tensor = self.head(F.relu(self.norm(self.blocks(x))).mean(dim=(2, 3)))
        return logits


def input_spec(dataset: Dataset, image_size: int) -> ImageSpec | VectorSpec:
    """What pictures (median size, at most ``image_size`` a side) or vectors of a data set are brought to.

    Raises:
        MethodError: the data set holds neither.
    """
    if dataset.kind == "vectors":
        return VectorSpec(size=dataset.vectors().shape[1])
    if dataset.kind != "images":
        raise MethodError(f"dataset: pictures or vectors are needed, it holds {dataset.kind}")
    shapes = np.array([np.shape(image) for image in dataset.inputs])
    height, width = np.median(shapes[:, :2], axis=0)
    scale = min(1.0, image_size / max(height, width))
    return ImageSpec(
        height=max(1, round(height * scale)),
        width=max(1, round(width * scale)),
        channels=1 if shapes[:, 2].max() == 1 else 3,
    )


def as_tensor(dataset: Dataset, spec: ImageSpec | VectorSpec) -> Tensor:
    """The inputs of a data set as a classifier of ``spec`` takes them.

    Raises:
        MethodError: vectors of another length, or with NaN or infinite values; names the row.
        InputError: the data set holds something else.
    """
    if isinstance(spec, ImageSpec):
        return batch_tensor(dataset.images(spec))
    vectors = dataset.vectors()
    if vectors.shape[1] != spec.size:
        raise MethodError(f"dataset: expected vectors of {spec.size} numbers, got {vectors.shape[1]}")
    broken = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(broken):
        raise MethodError(f"dataset: row {broken[0]} holds NaN or infinite values")
    return torch.from_numpy(np.ascontiguousarray(vectors))


def batch_tensor(inputs: Any) -> Tensor:
    """Inputs of ``predict``, uint8 ``(N, H, W, C)`` or float32 ``(N, D)``, as a classifier takes them."""
    array = np.asarray(inputs)
    if array.ndim == 4:
        return torch.from_numpy(array.transpose(0, 3, 1, 2).copy())
    return torch.from_numpy(np.asarray(array, dtype=np.float32))


def build_classifier(architecture: Architecture, inputs: Tensor, classes: int) -> Classifier:
    """A fresh network, from torch's global generator, that standardises by the moments of ``inputs``.

    Raises:
        MethodError: the architecture takes pictures, or larger ones.
    """
    dims = (0, 2, 3) if inputs.ndim == 4 else (0,)
    std, mean = torch.std_mean(inputs[:20_000].double(), dim=dims, correction=0)
    floor = max(1e-3 * float(std.mean()), 1e-12)
    shape = (-1, 1, 1) if inputs.ndim == 4 else (-1,)
    moments = (mean.float().view(shape), std.clamp_min(floor).float().view(shape))
    try:
        return Classifier(architecture, tuple(inputs.shape[1:]), classes, *moments)
    except ValueError as error:
        raise MethodError(str(error)) from error


def read_classifier(checkpoint: Checkpoint) -> Classifier:
    """The network of a checkpoint, in evaluation mode; see :func:`described`."""
    network = described(checkpoint, Classifier)
    if checkpoint.config.input.kind == "text":
        network.text = TextTransform(network.mean.shape[0])
    checkpoint.load_into(network)
    return network.eval()


def described(checkpoint: Checkpoint, kind: Callable[..., NetworkT]) -> NetworkT:
    """The untrained network whose ``architecture`` and ``shape`` the checkpoint's ``outputs`` name.

    Args:
        kind: takes what :class:`Classifier` takes.

    Raises:
        CheckpointError: the checkpoint is damaged or of another method.
    """
    facts = checkpoint.config.outputs
    try:
        architecture, shape = facts["architecture"], tuple(int(extent) for extent in facts["shape"])
        moments = (shape[0], 1, 1) if len(shape) == 3 else shape
        classes = len(checkpoint.config.class_names)
        return kind(architecture, shape, classes, torch.zeros(moments), torch.ones(moments))
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{checkpoint.folder.name}: its outputs name no architecture and shape") from error


def classifier_inputs(network: Classifier, dataset: Dataset, spec: InputSpec) -> Tensor:
    """The inputs of a data set as ``network``, whose checkpoint names ``spec``, takes them.

    Raises:
        MethodError: vectors of another length, or with NaN or infinite values; names the row.
        InputError: the data set holds something else.
    """
    if network.text is not None:
        return torch.from_numpy(network.text.vectors(dataset.texts()))
    assert isinstance(spec, ImageSpec | VectorSpec)
    return as_tensor(dataset, spec)


@torch.no_grad()
def logits_of(network: Standardised, inputs: Tensor, batch_size: int = 1000) -> Tensor:
    """Logits with the network in evaluation mode, float32 ``(N, classes)`` on the CPU."""
    network.eval()
    device = network.mean.device
    return torch.cat([network(batch.to(device)).float().cpu() for batch in torch.split(inputs, batch_size)])


def match_labels(dataset: Dataset, class_names: list[str]) -> Tensor:
    """The labels of a data set as positions in ``class_names``, int64 ``(N,)``, matched by name.

    Raises:
        MethodError: a class is unknown; names it.
    """
    positions = {name: index for index, name in enumerate(class_names)}
    labels = dataset.require_labels()
    used = np.unique(labels)
    unknown = [dataset.class_names[index] for index in used if dataset.class_names[index] not in positions]
    if unknown:
        raise MethodError(f"dataset: class {unknown[0]!r} is not one of the checkpoint's")
    mapping = np.full(len(dataset.class_names), -1, dtype=np.int64)
    mapping[used] = [positions[dataset.class_names[index]] for index in used]
    return torch.from_numpy(mapping[labels])
