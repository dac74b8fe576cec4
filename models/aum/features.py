"""A user's data set as one tensor, and the network that fits it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch

from models.aum.network import Architecture, Classifier
from models.core.classifiers import as_tensor, input_spec
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
        return Classifier(self.architecture, tuple(self.inputs.shape[1:]), outputs, *self._moments)

    @cached_property
    def _moments(self) -> tuple[torch.Tensor, torch.Tensor]:
        return _moments(self.inputs)


def extract_features(dataset: Dataset, encoder: str, *, image_size: int, seed: int) -> Features:
    """Pictures, vectors or texts as one tensor.

    ``encoder`` is ``auto``, ``small-cnn``, ``resnet32`` or ``mlp``.

    Raises:
        MethodError: the encoder does not take this kind of data, or there is nothing to learn from.
    """
    if dataset.kind == "images":
        architecture: Architecture = "small-cnn" if encoder == "auto" else encoder  # type: ignore[assignment]
        return _features(dataset, architecture, input_spec(dataset, image_size))
    if encoder not in ("auto", "mlp"):
        raise MethodError(f"encoder: {encoder} takes images, but the data set holds {dataset.kind}")
    if dataset.kind == "vectors":
        return _features(dataset, "mlp", input_spec(dataset, image_size))
    if dataset.kind == "text":
        transform = TextTransform.fit(dataset.texts(), seed)

        def encode(data: Dataset) -> torch.Tensor:
            return torch.from_numpy(transform.vectors(data.texts()))

        return Features(encode(dataset), "mlp", TextSpec(), encode, transform)
    raise MethodError(f"dataset: a data set of {dataset.kind} has no labels to check")


def _features(dataset: Dataset, architecture: Architecture, spec: ImageSpec | VectorSpec) -> Features:
    return Features(as_tensor(dataset, spec), architecture, spec, lambda data: as_tensor(data, spec))


def embedded_features(dataset: Dataset, embed: Callable[[Dataset], Float32], spec: InputSpec) -> Features:
    """Features through a frozen embedding model, float32 ``(N, D)`` from ``embed``; an MLP learns from them."""

    def encode(data: Dataset) -> torch.Tensor:
        vectors = Dataset("vectors", embed(data))
        return as_tensor(vectors, VectorSpec(size=vectors.vectors().shape[1]))

    return Features(encode(dataset), "mlp", spec, encode)


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
