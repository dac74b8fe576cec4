"""What pretraining on one data set is worth for another: the gain that the distance is to predict."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.core.dataset import Dataset
from models.core.inputs import Int64
from models.core.replay import Replayed
from models.otdd.variants import SPEC

BATCH = 64
SOURCE_STEPS, SOURCE_RATE = 400, 2e-3
TARGET_STEPS, TARGET_RATE = 120, 1e-3
CHECK_EVERY = 100
_AT_ONCE = 4096


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


def pretrain(source: Dataset, seed: int, device: torch.device, check: Callable[[], None] | None = None) -> SmallConvNet:
    """A network trained on ``source`` from random weights; ``check`` is called every hundred steps."""
    network = _fresh(source, seed, device)
    _train(network, source, SOURCE_STEPS, SOURCE_RATE, seed, check)
    return network


def target_error(
    target: Dataset, test: Dataset, shots: int, seed: int, device: torch.device, start: SmallConvNet | None = None
) -> float:
    """Test error after training on ``shots`` samples a class, from ``start``'s features or from random weights."""
    network = _fresh(target, seed, device)
    if start is not None:
        features = {name: tensor for name, tensor in start.state_dict().items() if not name.startswith("9.")}
        network.load_state_dict(features, strict=False)
    few = target.select(few_shots(target.require_labels(), shots, seed))
    _train(network, few, TARGET_STEPS, TARGET_RATE, seed)
    network.eval()
    images, truth = _tensors(test, device)
    with torch.inference_mode():
        wrong = [
            network(part).argmax(1) != right
            for part, right in zip(torch.split(images, _AT_ONCE), torch.split(truth, _AT_ONCE), strict=True)
        ]
        return float(torch.cat(wrong).float().mean())


def few_shots(labels: Int64, shots: int, seed: int) -> Int64:
    """At most ``shots`` random positions of each class."""
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    return np.concatenate([shuffled[labels[shuffled] == label][:shots] for label in np.unique(labels)])


def _fresh(dataset: Dataset, seed: int, device: torch.device) -> SmallConvNet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return SmallConvNet(len(dataset.class_names)).to(device)


def _tensors(dataset: Dataset, device: torch.device) -> tuple[Tensor, Tensor]:
    images = torch.from_numpy(dataset.images(SPEC)).to(device).permute(0, 3, 1, 2).float() / 255.0
    return images - 0.5, torch.from_numpy(dataset.require_labels()).to(device)


def _train(
    network: nn.Module, dataset: Dataset, steps: int, rate: float, seed: int, check: Callable[[], None] | None = None
) -> None:
    """``steps`` of Adam on batches that are drawn with replacement."""
    device = next(network.parameters()).device
    images, labels = _tensors(dataset, device)
    random = torch.Generator(device).manual_seed(seed)
    optimizer = torch.optim.Adam(network.parameters(), rate, capturable=device.type == "cuda")
    network.train()

    def step() -> None:
        rows = torch.randint(len(images), (BATCH,), generator=random, device=device)
        optimizer.zero_grad(set_to_none=True)
        loss: Tensor = F.cross_entropy(network(images[rows]), labels[rows])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    replayed = Replayed(step, device, random)
    for number in range(steps):
        if check and number % CHECK_EVERY == 0:
            check()
        replayed()
