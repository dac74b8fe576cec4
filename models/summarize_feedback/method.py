"""The summariser behind the contract of every method."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from models.core.checkpoint import Checkpoint
from models.core.dataset import Dataset
from models.core.figures import Figures
from models.core.method import Method
from models.core.outputs import Summary
from models.core.run import Run
from models.summarize_feedback.bundle import Bundle, read_bundle
from models.summarize_feedback.candidates import summarise
from models.summarize_feedback.evaluate import evaluate_method
from models.summarize_feedback.schema import Config, Params
from models.summarize_feedback.train import train_stage


class SummarizeFeedback(Method[Params, Config]):
    """One-line summaries, the best of several by a reward model that learnt from comparisons."""

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle

    @classmethod
    def load(cls, checkpoint: Checkpoint, device: torch.device) -> SummarizeFeedback:
        """Build the networks of ``checkpoint`` on ``device``.

        Raises:
            CheckpointError: the checkpoint is damaged.
        """
        return cls(read_bundle(checkpoint).to(device))

    def predict(self, inputs: Any, params: Params) -> Sequence[Summary]:
        """Summarise each text of a list; see :func:`models.summarize_feedback.candidates.summarise`."""
        with torch.inference_mode():
            return summarise(self._bundle, inputs, params)

    @classmethod
    def train(cls, dataset: Dataset, config: Config, run: Run) -> Checkpoint:
        """Train one of the three stages; see :func:`models.summarize_feedback.train.train_stage`."""
        return train_stage(dataset, config, run)

    @classmethod
    def evaluate(cls, checkpoint: Checkpoint, run: Run, dataset: Dataset | None = None) -> Figures:
        """Measure the policies and the reward model; see :mod:`models.summarize_feedback.evaluate`."""
        return evaluate_method(checkpoint, run, dataset)
