"""Checkpoints: ``weights.safetensors`` + ``config.json`` + ``figures.json`` in one folder.

No pickle is ever read. The config holds the SHA-256 of the weights, so that a truncated or swapped file is
named as such instead of failing inside a network.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

from models.core.figures import Figures
from models.core.inputs import InputSpec

if TYPE_CHECKING:
    import torch

WEIGHTS, CONFIG, FIGURES = "weights.safetensors", "config.json", "figures.json"


class CheckpointError(ValueError):
    """A checkpoint is missing, damaged or does not fit the method."""


class CheckpointConfig(BaseModel):
    """What ``config.json`` holds.

    ``config`` is the method's own training configuration, ``input`` what the trained model takes and
    ``class_names`` the meaning of its outputs where it has classes.
    """

    model_config = ConfigDict(extra="forbid")
    method: str
    version: str = "1"
    input: InputSpec
    config: dict[str, Any] = {}
    class_names: list[str] = []
    outputs: dict[str, Any] = Field(default={}, description="facts of the outputs, e.g. dimensions")
    weights_sha256: str = ""
    data_sha256: str = ""
    seed: int = 0
    command: str = ""


class Checkpoint:
    """One checkpoint folder, opened lazily.

    Raises:
        CheckpointError: the folder or its config is missing or not valid.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        path = folder / CONFIG
        try:
            self.config = CheckpointConfig.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            raise CheckpointError(f"{folder.name}: no {CONFIG}") from None
        except ValueError as error:
            raise CheckpointError(f"{folder.name}/{CONFIG} is not valid: {error}") from error

    @cached_property
    def figures(self) -> Figures | None:
        """The measured figures, or None for a checkpoint that was never evaluated."""
        path = self.folder / FIGURES
        return Figures.model_validate_json(path.read_bytes()) if path.exists() else None

    def tensors(self, device: torch.device | str = "cpu") -> dict[str, torch.Tensor]:
        """Read the weights after checking their hash.

        Raises:
            CheckpointError: missing, truncated or altered weights.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load

        path = self.folder / WEIGHTS
        if not path.exists():
            raise CheckpointError(f"{self.folder.name}: no {WEIGHTS}")
        raw = path.read_bytes()
        if hashlib.sha256(raw).hexdigest() != self.config.weights_sha256:
            raise CheckpointError(f"{self.folder.name}/{WEIGHTS}: its SHA-256 is not the one in {CONFIG}")
        try:
            return {name: tensor.to(device) for name, tensor in load(raw).items()}
        except SafetensorError as error:
            raise CheckpointError(f"{self.folder.name}/{WEIGHTS}: {error}") from error

    def load_into(self, module: torch.nn.Module) -> None:
        """Copy the weights into ``module`` (half-precision weights are widened to the module's dtype).

        Raises:
            CheckpointError: a tensor is missing, left over or of another shape; names it.
        """
        fill(module, self.tensors(), self.folder.name)

    @classmethod
    def write(
        cls,
        folder: Path,
        config: CheckpointConfig,
        tensors: Mapping[str, torch.Tensor],
        figures: Figures | None = None,
    ) -> Checkpoint:
        """Write a checkpoint folder and open it; the config's weight hash is filled in here."""
        from safetensors.torch import save

        folder.mkdir(parents=True, exist_ok=True)
        raw = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
        (folder / WEIGHTS).write_bytes(raw)
        written = config.model_copy(update={"weights_sha256": hashlib.sha256(raw).hexdigest()})
        (folder / CONFIG).write_text(json.dumps(written.model_dump(mode="json"), indent=2) + "\n", encoding="utf-8")
        checkpoint = cls(folder)
        if figures is not None:
            checkpoint.write_figures(figures)
        return checkpoint

    def write_figures(self, figures: Figures) -> None:
        """Write ``figures.json`` beside the weights."""
        text = json.dumps(figures.model_dump(mode="json"), indent=1)
        (self.folder / FIGURES).write_text(text + "\n", encoding="utf-8")
        self.__dict__.pop("figures", None)


def fill(module: torch.nn.Module, tensors: Mapping[str, torch.Tensor], name: str) -> None:
    """Copy ``tensors``, all of them, into ``module`` (half-precision ones are widened to the module's dtype).

    Args:
        name: of the checkpoint, for messages.

    Raises:
        CheckpointError: a tensor is missing, left over or of another shape; names it.
    """
    expected = module.state_dict()
    missing, surplus = sorted(expected.keys() - tensors.keys()), sorted(tensors.keys() - expected.keys())
    if missing or surplus:
        raise CheckpointError(f"{name}: missing tensors {missing}, unexpected tensors {surplus}")
    for key, tensor in tensors.items():
        if tensor.shape != expected[key].shape:
            raise CheckpointError(
                f"{name}: {key} has shape {tuple(tensor.shape)}, the network expects {tuple(expected[key].shape)}"
            )
    module.load_state_dict({key: tensor.to(expected[key].dtype) for key, tensor in tensors.items()})
