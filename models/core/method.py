"""The contract that every method keeps. A deployment, a worker and the command line run this same code."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, Generic, TypeVar

import torch
from pydantic import BaseModel

from models.core.card import Card
from models.core.checkpoint import Checkpoint
from models.core.dataset import Dataset
from models.core.figures import Figures
from models.core.run import Run

ParamsT = TypeVar("ParamsT", bound=BaseModel)
ConfigT = TypeVar("ConfigT", bound=BaseModel)


class MethodError(ValueError):
    """A request or configuration that the method cannot serve; the message is shown to the user."""


class Method(ABC, Generic[ParamsT, ConfigT]):
    """One trained method, loaded.

    ``card`` is filled in by the registry from ``card.toml``. What :meth:`predict` takes and returns depends on
    the card's capability; the types stand in :mod:`models.core.outputs`.
    """

    card: ClassVar[Card]

    @classmethod
    @abstractmethod
    def load(cls, checkpoint: Checkpoint, device: torch.device) -> Method[ParamsT, ConfigT]:
        """Build the network of ``checkpoint``, one of this method, on ``device``, ready to predict.

        Raises:
            CheckpointError: the checkpoint is damaged.
        """

    @abstractmethod
    def predict(self, inputs: Any, params: ParamsT) -> Sequence[Any]:
        """One output an input, in order, computed as one batch; no side effects.

        Several threads may be in here at once; an exception fails the half of the batch that raises it, then its
        halves, down to the single input.

        ``inputs`` is uint8 ``(N, H, W, C)``, float32 ``(N, D)``, a list of strings, or a list of
        :class:`models.core.outputs.Sides` or :class:`models.core.outputs.Draw`, as the checkpoint's input spec says.
        """

    def stream(self, inputs: Any, params: ParamsT) -> Iterator[Sequence[Any]]:
        """What :meth:`predict` gives, after any number of previews of the same type: one output an input each time.

        Whoever iterates may stop between two of them, and the work ends there.
        """
        yield self.predict(inputs, params)

    def objective(self, dataset: Dataset) -> tuple[torch.nn.Module, Callable[[], torch.Tensor]]:
        """The network and its differentiable mean loss over all of ``dataset``: in evaluation mode, without decay.

        Raises:
            MethodError: the method offers none, or not on this data.
        """
        raise MethodError(f"{self.card.slug} offers no loss to measure")

    @classmethod
    def train(cls, dataset: Dataset, config: ConfigT, run: Run) -> Checkpoint:
        """Train on ``dataset`` and write a checkpoint into ``run.scratch / "checkpoint"``.

        Resumes from ``run.load_state()`` with the same result as an undisturbed run of the same seed.

        Raises:
            MethodError: the method cannot be trained, or not on this data.
            Cancelled: the user asked for it.
        """
        raise MethodError(f"{cls.card.slug} has nothing to train")

    @classmethod
    @abstractmethod
    def evaluate(cls, checkpoint: Checkpoint, run: Run, dataset: Dataset | None = None) -> Figures:
        """Reproduce the paper's proof from ``checkpoint``, baselines beside it.

        With ``dataset``, measure the checkpoint on the user's data instead.
        """


class WeightlessMethod(Method[ParamsT, ConfigT]):
    """A method that computes from its inputs alone: its checkpoint holds settings, no weights."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    @classmethod
    def load(cls, checkpoint: Checkpoint, device: torch.device) -> WeightlessMethod[ParamsT, ConfigT]:
        """Nothing is read from ``checkpoint``."""
        return cls(device)
