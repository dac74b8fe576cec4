"""A user's data set as one tensor, and the network that fits it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from models.aum.network import Architecture, Classifier
from models.core.dataset import Dataset
from models.core.inputs import Float32, ImageSpec, InputSpec, TextSpec, VectorSpec
from models.core.method import MethodError
from models.core.text import TextTransform

_MIN_STD = 1e-3  # of a feature's overall scale: constant features become zero instead of noise


@dataclass(frozen=True, eq=False)
class Features:
    """What a classifier is trained on.

    Attributes:
        inputs: uint8 ``(N, C, H, W)`` or float32 ``(N, D)``.
        spec: what one input of a user looks like.
        encode: brings another data set of the same kind into the form of ``inputs``.
        text: how texts became vectors.
    """

    inputs: torch.Tensor
    architecture: Architecture
    spec: InputSpec
    encode: Callable[[Dataset], torch.Tensor]
    text: TextTransform | None = None

    def network(self, outputs: int) -> Classifier:
        """A freshly initialised network (from torch's global generator) that standardises by these inputs."""
        mean, std = _moments(self.inputs)
        return Classifier(self.architecture, tuple(self.inputs.shape[1:]), outputs, mean, std)


def extract_features(dataset: Dataset, encoder: str, *, image_size: int, seed: int) -> Features:
    """Pictures, vectors or texts as one tensor.

    ``encoder`` is ``auto``, ``small-cnn``, ``resnet32`` or ``mlp``.

    Raises:
        MethodError: the encoder does not take this kind of data, or there is nothing to learn from.
    """
    if dataset.kind == "images":
        spec = image_spec(dataset, image_size)
        architecture: Architecture = "small-cnn" if encoder == "auto" else encoder  # type: ignore[assignment]
        return _features(dataset, architecture, spec, lambda data: image_tensor(data.images(spec)))
    if encoder not in ("auto", "mlp"):
        raise MethodError(f"encoder: {encoder} takes images, but the data set holds {dataset.kind}")
    if dataset.kind == "vectors":
        size = VectorSpec(size=dataset.vectors().shape[1])
        return _features(dataset, "mlp", size, lambda data: vector_tensor(data.vectors(), size.size))
    if dataset.kind == "text":
        transform = TextTransform.fit(dataset.texts(), seed)
        return _features(
            dataset, "mlp", TextSpec(), lambda data: torch.from_numpy(transform.vectors(data.texts())), transform
        )
    raise MethodError(f"dataset: a data set of {dataset.kind} has no labels to check")


def _features(
    dataset: Dataset,
    architecture: Architecture,
    spec: InputSpec,
    encode: Callable[[Dataset], torch.Tensor],
    text: TextTransform | None = None,
) -> Features:
    return Features(encode(dataset), architecture, spec, encode, text)


def embedded_features(dataset: Dataset, embed: Callable[[Dataset], Float32], spec: InputSpec) -> Features:
    """Features through a frozen embedding model, float32 ``(N, D)`` from ``embed``; an MLP learns from them."""

    def encode(data: Dataset) -> torch.Tensor:
        vectors = embed(data)
        return vector_tensor(vectors, vectors.shape[1])

    return _features(dataset, "mlp", spec, encode)


def vector_tensor(vectors: Float32, size: int) -> torch.Tensor:
    """Checked float32 ``(N, size)``.

    Raises:
        MethodError: another length, or a value is NaN or infinite; names the row.
    """
    if vectors.shape[1] != size:
        raise MethodError(f"dataset: expected vectors of {size} numbers, got {vectors.shape[1]}")
    broken = np.flatnonzero(~np.isfinite(vectors).all(axis=1))
    if len(broken):
        raise MethodError(f"dataset: row {broken[0]} holds NaN or infinite values")
    return torch.from_numpy(np.ascontiguousarray(vectors, dtype=np.float32))


def image_spec(dataset: Dataset, image_size: int) -> ImageSpec:
    """The size and channels that the data set's pictures are brought to: its median size, at most ``image_size``."""
    if isinstance(dataset.inputs, np.ndarray):
        height, width, channels = dataset.inputs.shape[1:]
    else:
        shapes = np.array([np.asarray(image).shape for image in dataset.inputs])
        height, width, channels = int(np.median(shapes[:, 0])), int(np.median(shapes[:, 1])), shapes[:, 2].max()
    scale = min(1.0, image_size / max(height, width))
    sides = (max(1, round(height * scale)), max(1, round(width * scale)))
    return ImageSpec(height=sides[0], width=sides[1], channels=1 if channels == 1 else 3)


def image_tensor(images: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> torch.Tensor:
    """uint8 ``(N, H, W, C)`` as uint8 ``(N, C, H, W)``."""
    return torch.from_numpy(images.transpose(0, 3, 1, 2).copy())


def _moments(inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    if inputs.ndim == 4:
        # Through a histogram of the 256 values: exact, and no float copy of the pictures.
        histograms = torch.stack([torch.bincount(channel.flatten(), minlength=256) for channel in inputs.unbind(1)])
        shares = histograms.double() / histograms.sum(dim=1, keepdim=True)
        values = torch.arange(256, dtype=torch.float64)
        mean = shares @ values
        std = (shares @ values**2 - mean**2).clamp_min(0).sqrt().clamp_min(1.0)
        return mean.float().view(-1, 1, 1), std.float().view(-1, 1, 1)
    std, mean = torch.std_mean(inputs.double(), dim=0, correction=0)
    floor = _MIN_STD * float(std.mean()) if float(std.mean()) > 0 else 1.0
    return mean.float(), std.clamp_min(floor).float()
