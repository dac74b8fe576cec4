"""Networks: an encoder, whose output is the penultimate space, and a head onto the hypersphere."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.align_uniform.schema import Config
from models.align_uniform.words import BagOfWords
from models.core.checkpoint import Checkpoint, CheckpointError
from models.core.encoders import ConvEncoder
from models.core.inputs import ImageSpec, TextSpec


class SmallAlexNet(nn.Module):
    """The paper's encoder up to the layer before the head: five convolutions, two layers of 4096.

    Args:
        channels: of the input pictures.
        image_size: height and width of the input pictures, at least 36 pixels.
    """

    features = 4096

    def __init__(self, channels: int, image_size: int) -> None:
        super().__init__()
        plan = ((channels, 96, True), (96, 192, True), (192, 384, False), (384, 384, False), (384, 192, True))
        layers: list[nn.Module] = []
        side = image_size
        for inside, outside, pooled in plan:
            layers += [nn.Conv2d(inside, outside, 3, padding=1, bias=False), nn.BatchNorm2d(outside), nn.ReLU()]
            if pooled:
                layers.append(nn.MaxPool2d(3, 2))
                side = (side - 3) // 2 + 1
        self.convolutions = nn.Sequential(*layers)
        self.full = nn.Sequential(
            nn.Linear(192 * side * side, 4096, bias=False),
            nn.BatchNorm1d(4096),
            nn.ReLU(),
            nn.Linear(4096, 4096, bias=False),
            nn.BatchNorm1d(4096),
            nn.ReLU(),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Float32 ``(B, C, S, S)`` to ``(B, 4096)``."""
        features: Tensor = self.full(self.convolutions(images).flatten(1))
        return features


class EmbeddingNetwork(nn.Module):
    """An encoder, a head and the principal axes of both spaces.

    The axes are orthogonal, so turning a vector onto them changes no inner product and neither loss; the first
    k of them keep as much of the training features' second moment as any k directions can.

    Args:
        channels: of the input pictures; None for texts.

    Attributes:
        penultimate_axes: ``(features, features)``, columns ordered by decreasing share.
        projection_axes: ``(feat_dim, feat_dim)``.
    """

    penultimate_axes: Tensor
    projection_axes: Tensor

    def __init__(self, config: Config, channels: int | None) -> None:
        super().__init__()
        self.encoder: ConvEncoder | SmallAlexNet | BagOfWords
        self.head: nn.Module
        if channels is not None and config.encoder == "small-alexnet":
            self.encoder = SmallAlexNet(channels, config.image_size)
            self.head = nn.Linear(self.encoder.features, config.feat_dim)
        else:
            if channels is None:
                self.encoder = BagOfWords(config.word_buckets, config.word_features)
            else:
                self.encoder = ConvEncoder(channels, config.width)
            hidden = 2 * self.encoder.features
            self.head = nn.Sequential(
                nn.Linear(self.encoder.features, hidden, bias=False),
                nn.BatchNorm1d(hidden),
                nn.ReLU(),
                nn.Linear(hidden, config.feat_dim),
            )
        self.register_buffer("penultimate_axes", torch.eye(self.encoder.features))
        self.register_buffer("projection_axes", torch.eye(config.feat_dim))

    def forward(self, inputs: Tensor) -> Tensor:
        """Points on the hypersphere, ``(B, feat_dim)`` of unit length, in the trained coordinates."""
        return F.normalize(self.head(self.encoder(inputs)), dim=1)

    def features(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """The penultimate features and the hypersphere's points of the same inputs, in the trained coordinates."""
        penultimate = self.encoder(inputs)
        return penultimate, F.normalize(self.head(penultimate), dim=1)

    def embed(self, inputs: Tensor, *, projection: bool, normalize: bool, dimensions: int | None) -> Tensor:
        """Vectors of one space on its principal axes, ``(B, dimensions)``."""
        vectors = self.encoder(inputs)
        axes = self.penultimate_axes
        if projection:
            vectors, axes = self.head(vectors), self.projection_axes
        vectors = vectors @ axes[:, :dimensions]
        return F.normalize(vectors, dim=1) if normalize else vectors


def principal_axes(features: Tensor) -> Tensor:
    """Eigenvectors of the second moment of the rows scaled to unit length, ``(D, D)``, by decreasing eigenvalue."""
    unit = F.normalize(features.double(), dim=1)
    _, vectors = torch.linalg.eigh(unit.T @ unit / len(unit))
    ordered: Tensor = vectors.flip(1).float()
    return ordered


def open_network(checkpoint: Checkpoint) -> tuple[EmbeddingNetwork, ImageSpec | TextSpec]:
    """The network of ``checkpoint`` with its weights, and what it takes.

    Raises:
        CheckpointError: the checkpoint is damaged, or for neither pictures nor texts.
    """
    found = checkpoint.config
    if not isinstance(found.input, ImageSpec | TextSpec):
        raise CheckpointError(f"{checkpoint.folder.name} is a checkpoint for {found.input.kind}")
    try:
        config = Config.model_validate(found.config)
    except ValueError as error:
        raise CheckpointError(f"{checkpoint.folder.name}/config.json: {error}") from error
    network = EmbeddingNetwork(config, found.input.channels if isinstance(found.input, ImageSpec) else None)
    checkpoint.load_into(network)
    return network.eval(), found.input
