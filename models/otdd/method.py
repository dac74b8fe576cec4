"""The optimal transport data set distance as a method."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from models.core.checkpoint import Checkpoint, CheckpointError
from models.core.dataset import Dataset
from models.core.figures import Figures
from models.core.method import Method
from models.core.outputs import Distance, Sides
from models.core.run import Run
from models.otdd.distance import otdd
from models.otdd.evaluate import evaluate
from models.otdd.schema import Config, Params


class OTDD(Method[Params, Config]):
    """Distances need no weights: the shipped checkpoint holds settings only."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    @classmethod
    def load(cls, checkpoint: Checkpoint, device: torch.device) -> OTDD:
        """Check that the checkpoint is this method's."""
        if checkpoint.config.method != "otdd":
            raise CheckpointError(f"{checkpoint.folder.name} is a checkpoint of {checkpoint.config.method}")
        return cls(device)

    def predict(self, inputs: Sequence[Sides], params: Params) -> list[Distance]:
        """One :class:`Distance` for each pair of sides.

        Raises:
            MethodError: sides that are not valid for ``params``.
        """
        return [otdd(sides, params, self.device) for sides in inputs]

    @classmethod
    def evaluate(cls, checkpoint: Checkpoint, run: Run, dataset: Dataset | None = None) -> Figures:
        """The proofs of alignment, drift, transfer and approximation; on a user's data set, its own drift."""
        return evaluate(checkpoint, run, dataset)
