"""The classifier behind the contract of every method."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from models.aum.evaluate import evaluate_method
from models.aum.network import Classifier
from models.aum.schema import Config, Params
from models.aum.train import dataset_inputs, read_networks, train_classifier
from models.core.checkpoint import Checkpoint
from models.core.classifiers import batch_tensor, logits_of, match_labels
from models.core.dataset import Dataset
from models.core.figures import Figures
from models.core.inputs import Float32, InputSpec
from models.core.method import Method
from models.core.run import Run
from models.core.text import TextTransform


class Aum(Method[Params, Config]):
    """Class probabilities of pictures, vectors or texts."""

    def __init__(
        self, network: Classifier, text: TextTransform | None, spec: InputSpec, class_names: list[str]
    ) -> None:
        self._network, self._text, self._spec, self._class_names = network, text, spec, class_names

    @classmethod
    def load(cls, checkpoint: Checkpoint, device: torch.device) -> Aum:
        """Build the network of ``checkpoint`` on ``device``.

        Raises:
            CheckpointError: the checkpoint is damaged.
        """
        network, text = read_networks(checkpoint)
        return cls(network.to(device), text, checkpoint.config.input, checkpoint.config.class_names)

    def predict(self, inputs: Any, params: Params) -> Sequence[Float32]:
        """Float32 ``(C,)`` probabilities of each input: uint8 ``(N, H, W, C)``, float32 ``(N, D)`` or texts."""
        tensor = batch_tensor(inputs if self._text is None else self._text.vectors(inputs))
        return list(logits_of(self._network, tensor).softmax(dim=1).numpy())

    def objective(self, dataset: Dataset) -> tuple[nn.Module, Callable[[], torch.Tensor]]:
        """The network and its mean cross-entropy on ``dataset``."""
        device = self._network.mean.device
        inputs = dataset_inputs(dataset, self._spec, self._text).to(device)
        labels = match_labels(dataset, self._class_names).to(device)
        return self._network.eval(), lambda: F.cross_entropy(self._network(inputs), labels)

    @classmethod
    def train(cls, dataset: Dataset, config: Config, run: Run) -> Checkpoint:
        """Train an ordinary classifier; see :func:`models.aum.train.train_classifier`."""
        return train_classifier(dataset, config, run)

    @classmethod
    def evaluate(cls, checkpoint: Checkpoint, run: Run, dataset: Dataset | None = None) -> Figures:
        """Reproduce the proof, or measure the checkpoint on ``dataset``."""
        return evaluate_method(checkpoint, run, dataset)
