"""What pretraining on one data set is worth for another: the gain that the distance is to predict."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.core.dataset import Dataset
from models.core.inputs import Int64
from models.otdd.variants import SPEC

BATCH = 64
SOURCE_EPOCHS, SOURCE_RATE = 4, 2e-3
TARGET_STEPS, TARGET_RATE = 60, 1e-3


class SmallConvNet(nn.Sequential):
    """Two convolutions and a linear classifier on grey pictures of 28 x 28."""

    def __init__(self, classes: int) -> None:
        super().__init__(
            nn.Conv2d(1, 16, 5, stride=2, padding=2),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32 * 7 * 7, 64),
            nn.ReLU(),
            nn.Linear(64, classes),
        )


def pretrain(source: Dataset, seed: int, check: Callable[[], None] | None = None) -> SmallConvNet:
    """A network trained on ``source`` from random weights."""
    network = _fresh(source, seed)
    images, labels = _tensors(source)
    order = np.random.default_rng(seed)
    optimizer = torch.optim.Adam(network.parameters(), SOURCE_RATE)
    network.train()
    for _ in range(SOURCE_EPOCHS):
        if check:
            check()
        for rows in np.array_split(order.permutation(len(images)), max(1, len(images) // BATCH)):
            _step(network, optimizer, images[rows], labels[rows])
    return network


def target_error(target: Dataset, test: Dataset, shots: int, seed: int, start: SmallConvNet | None = None) -> float:
    """Test error after training on ``shots`` samples a class, from ``start``'s features or from random weights."""
    network = _fresh(target, seed)
    if start is not None:
        features = {name: tensor for name, tensor in start.state_dict().items() if not name.startswith("9.")}
        network.load_state_dict(features, strict=False)
    few = target.select(few_shots(target.require_labels(), shots, seed))
    images, labels = _tensors(few)
    order = np.random.default_rng(seed)
    optimizer = torch.optim.Adam(network.parameters(), TARGET_RATE)
    network.train()
    for _ in range(TARGET_STEPS):
        rows = order.permutation(len(images))[:BATCH]
        _step(network, optimizer, images[rows], labels[rows])
    network.eval()
    held_out, truth = _tensors(test)
    with torch.inference_mode():
        return float((network(held_out).argmax(1) != truth).float().mean())


def few_shots(labels: Int64, shots: int, seed: int) -> Int64:
    """At most ``shots`` random positions of each class."""
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    return np.concatenate([shuffled[labels[shuffled] == label][:shots] for label in np.unique(labels)])


def _fresh(dataset: Dataset, seed: int) -> SmallConvNet:
    torch.manual_seed(seed)
    return SmallConvNet(len(dataset.class_names))


def _tensors(dataset: Dataset) -> tuple[Tensor, Tensor]:
    images = torch.from_numpy(dataset.images(SPEC)).permute(0, 3, 1, 2).float() / 255.0
    return images - 0.5, torch.from_numpy(dataset.require_labels())


def _step(network: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor) -> None:
    optimizer.zero_grad()
    loss: Tensor = F.cross_entropy(network(images), labels)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
