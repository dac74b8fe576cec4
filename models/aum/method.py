"""The classifier behind the contract of every method."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from models.aum.evaluate import evaluate_method
from models.aum.features import image_tensor
from models.aum.fit import logits_of
from models.aum.network import Classifier
from models.aum.schema import Config, Params
from models.aum.train import read_networks, train_classifier
from models.core.checkpoint import Checkpoint
from models.core.dataset import Dataset
from models.core.figures import Figures
from models.core.inputs import Float32
from models.core.method import Method
from models.core.run import Run
from models.core.text import TextTransform


class Aum(Method[Params, Config]):
    """Class probabilities of pictures, vectors or texts."""

    def __init__(self, network: Classifier, text: TextTransform | None) -> None:
        self._network = network
        self._text = text

    @classmethod
    def load(cls, checkpoint: Checkpoint, device: torch.device) -> Aum:
        """Build the network of ``checkpoint`` on ``device``.

        Raises:
            CheckpointError: the checkpoint is damaged.
        """
        network, text = read_networks(checkpoint)
        return cls(network.to(device), text)

    def predict(self, inputs: Any, params: Params) -> Sequence[Float32]:
        """Float32 ``(C,)`` probabilities of each input: uint8 ``(N, H, W, C)``, float32 ``(N, D)`` or texts."""
        if self._text is not None:
            tensor = torch.from_numpy(self._text.vectors(inputs))
        else:
            array = np.asarray(inputs)
            tensor = image_tensor(array) if array.ndim == 4 else torch.from_numpy(np.asarray(array, dtype=np.float32))
        return list(logits_of(self._network, tensor).softmax(dim=1).numpy())

    @classmethod
    def train(cls, dataset: Dataset, config: Config, run: Run) -> Checkpoint:
        """Train an ordinary classifier; see :func:`models.aum.train.train_classifier`."""
        return train_classifier(dataset, config, run)

    @classmethod
    def evaluate(cls, checkpoint: Checkpoint, run: Run, dataset: Dataset | None = None) -> Figures:
        """Reproduce the proof, or measure the checkpoint on ``dataset``."""
        return evaluate_method(checkpoint, run, dataset)
