"""What ships: the proof's encoders in eight bits a weight, and a trained checkpoint in half precision.

``python -m models.align_uniform.shipping CHECKPOINT`` puts a checkpoint into ``weights/``, with ``--version NAME`` into
``weights/NAME``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel
from safetensors.torch import load, save
from torch import Tensor

from models.align_uniform.network import EmbeddingNetwork
from models.align_uniform.recipes import SPEC, Recipe
from models.align_uniform.schema import Config
from models.core.checkpoint import Checkpoint, CheckpointError

WEIGHTS = Path(__file__).parent / "weights"
FOLDER = WEIGHTS / "proof"
_SCALE = ".scale"


class Shipped(BaseModel):
    """One entry of ``weights/proof/index.json``.

    Attributes:
        steps, seconds: of the training; several encoders share a GPU, so that seconds compare nothing there.
        device: kind of device that it was trained on.
    """

    group: str
    seed: int
    config: dict[str, Any]
    supervised: bool
    steps: int
    seconds: float
    device: str
    sha256: str


def to_bytes(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Matrices and kernels as int8 with one scale for each output (the largest weight is 127), the rest as float16."""
    packed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if tensor.ndim < 2:
            packed[name] = tensor.half()
            continue
        scale = tensor.flatten(1).abs().amax(dim=1).clamp_min(1e-12) / 127
        packed[name] = (tensor / scale.view(-1, *[1] * (tensor.ndim - 1))).round().to(torch.int8)
        packed[name + _SCALE] = scale
    return {name: tensor.contiguous() for name, tensor in packed.items()}


def from_bytes(packed: dict[str, Tensor]) -> dict[str, Tensor]:
    """Float32 tensors of what :func:`to_bytes` packed."""
    found = {name: tensor.float() for name, tensor in packed.items() if not name.endswith(_SCALE)}
    for name, scale in packed.items():
        if name.endswith(_SCALE):
            tensor = found[name.removesuffix(_SCALE)]
            tensor.mul_(scale.view(-1, *[1] * (tensor.ndim - 1)))
    return found


def ship(
    recipe: Recipe, network: EmbeddingNetwork, *, steps: int, seconds: float, device: str, folder: Path = FOLDER
) -> None:
    """Add an encoder to the proof; the head only where it was trained."""
    folder.mkdir(parents=True, exist_ok=True)
    kept = {
        name: tensor.detach().cpu()
        for name, tensor in network.state_dict().items()
        if tensor.is_floating_point() and not name.endswith("_axes")
    }
    raw = save(to_bytes({n: t for n, t in kept.items() if not (recipe.supervised and n.startswith("head"))}))
    (folder / f"{recipe.name}.safetensors").write_bytes(raw)
    index = read_index(folder) if (folder / "index.json").exists() else {}
    index[recipe.name] = Shipped(
        group=recipe.group,
        seed=recipe.seed,
        config=recipe.config.model_dump(),
        supervised=recipe.supervised,
        steps=steps,
        seconds=round(seconds, 1),
        device=device,
        sha256=hashlib.sha256(raw).hexdigest(),
    )
    text = json.dumps({name: entry.model_dump() for name, entry in sorted(index.items())}, indent=1)
    (folder / "index.json").write_text(text + "\n", encoding="utf-8")


def read_index(folder: Path = FOLDER) -> dict[str, Shipped]:
    """The encoders that ship.

    Raises:
        CheckpointError: there is no index.
    """
    path = folder / "index.json"
    if not path.exists():
        raise CheckpointError("weights/proof/index.json is missing: the proof has no encoders")
    return {name: Shipped.model_validate(entry) for name, entry in json.loads(path.read_bytes()).items()}


def open_encoder(name: str, entry: Shipped, folder: Path = FOLDER) -> EmbeddingNetwork:
    """One encoder that ships, in evaluation mode.

    Raises:
        CheckpointError: its file is missing, altered or does not fit.
    """
    path = folder / f"{name}.safetensors"
    if not path.exists():
        raise CheckpointError(f"weights/proof/{path.name} is missing")
    raw = path.read_bytes()
    if hashlib.sha256(raw).hexdigest() != entry.sha256:
        raise CheckpointError(f"weights/proof/{path.name}: its SHA-256 is not the one in index.json")
    network = EmbeddingNetwork(Config.model_validate(entry.config), SPEC.channels)
    unset = network.load_state_dict(from_bytes(load(raw)), strict=False).missing_keys
    missing = [key for key in unset if not _left_out(key, entry)]
    if missing:
        raise CheckpointError(f"weights/proof/{path.name} lacks {missing}")
    return network.eval()


def _left_out(name: str, entry: Shipped) -> bool:
    return name.endswith(("_axes", "num_batches_tracked")) or (entry.supervised and name.startswith("head"))


def halve(checkpoint: Checkpoint, version: str, folder: Path) -> Checkpoint:
    """Write ``checkpoint`` as ``version`` into ``folder``, in half precision but for the axes: rounded, they would no
    longer be orthogonal.
    """
    tensors = {
        name: tensor.half() if tensor.is_floating_point() and not name.endswith("_axes") else tensor
        for name, tensor in checkpoint.tensors().items()
    }
    config = checkpoint.config.model_copy(update={"version": version})
    return Checkpoint.write(folder, config, tensors, checkpoint.figures)


def main() -> None:
    """Ship the checkpoint that the command line names."""
    parser = argparse.ArgumentParser(description="put a trained checkpoint into weights/, in half precision")
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--version", help="a version beside the default one")
    arguments = parser.parse_args()
    folder = WEIGHTS / arguments.version if arguments.version else WEIGHTS
    halve(Checkpoint(arguments.checkpoint), arguments.version or "1", folder)


if __name__ == "__main__":
    main()
