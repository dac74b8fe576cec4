"""Everything of a version in one checkpoint: tokenizer, encoder, policies and reward model, which share the encoder."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from models.core.checkpoint import Checkpoint, CheckpointConfig, CheckpointError, fill
from models.core.figures import Figures
from models.core.inputs import TextSpec
from models.summarize_feedback.network import Encoder, Policy, Shape
from models.summarize_feedback.schema import Config
from models.summarize_feedback.scorer import Scorer
from models.summarize_feedback.tokenizer import pack_tokenizer, unpack_tokenizer

SLUG = "summarize-feedback"
WEIGHTS = Path(__file__).parent / "weights"
Source = Literal["none", "simulated", "human", "mixed"]
_TOKENIZER = "tokenizer"


@dataclass(eq=False)
class Bundle:
    """The networks of a version.

    Attributes:
        sft: the supervised policy.
        reward: the reward model, or None before stage 2.
        ppo: the tuned policy, or None before stage 3.
        preference_source: who preferred what the reward model learnt from.
    """

    shape: Shape
    tokenizer: Tokenizer
    encoder: Encoder
    sft: Policy
    reward: Scorer | None = None
    ppo: Policy | None = None
    preference_source: Source = "none"

    def modules(self) -> dict[str, nn.Module]:
        """The networks that there are, by name."""
        named = {"encoder": self.encoder, "sft": self.sft, "reward": self.reward, "ppo": self.ppo}
        return {name: module for name, module in named.items() if module is not None}

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return self.encoder.embedding.weight.device

    def to(self, device: torch.device) -> Bundle:
        """Move the networks."""
        for module in self.modules().values():
            module.to(device)
        return self


def read_bundle(checkpoint: Checkpoint) -> Bundle:
    """The networks of a checkpoint, widened to float32, in evaluation mode on the CPU.

    Raises:
        CheckpointError: the checkpoint is damaged.
    """
    tensors, facts = checkpoint.tensors(), checkpoint.config.outputs
    try:
        shape = Shape(**facts["shape"])
        tokenizer = unpack_tokenizer(tensors.pop(_TOKENIZER))
        source: Source = facts["preference_source"]
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{checkpoint.folder.name}: {error} is missing or wrong") from error
    found: dict[str, Any] = {}
    makers = {"encoder": Encoder, "sft": Policy, "reward": Scorer, "ppo": Policy}
    for name, maker in makers.items():
        if any(key.startswith(f"{name}.") for key in tensors):
            found[name] = maker(shape).eval()
    if not {"encoder", "sft"} <= found.keys():
        raise CheckpointError(f"{checkpoint.folder.name}: it holds no encoder and policy")
    fill(nn.ModuleDict(found), tensors, checkpoint.folder.name)
    return Bundle(shape, tokenizer, **found, preference_source=source)


def write_bundle(
    folder: Path, bundle: Bundle, config: Config, *, data_sha256: str, seed: int, figures: Figures | None = None
) -> Checkpoint:
    """Write a checkpoint in half precision."""
    tensors: dict[str, Tensor] = {_TOKENIZER: pack_tokenizer(bundle.tokenizer)}
    for name, module in bundle.modules().items():
        tensors |= {f"{name}.{key}": tensor.half() for key, tensor in module.state_dict().items()}
    described = CheckpointConfig(
        method=SLUG,
        input=TextSpec(),
        config=config.model_dump(mode="json"),
        outputs={
            "shape": asdict(bundle.shape),
            "policies": [name for name in ("sft", "ppo") if name in bundle.modules()],
            "reward_model": bundle.reward is not None,
            "preference_source": bundle.preference_source,
        },
        data_sha256=data_sha256,
        seed=seed,
    )
    return Checkpoint.write(folder, described, tensors, figures)


def shipped() -> Bundle:
    """The networks that ship with the method."""
    return read_bundle(Checkpoint(WEIGHTS))
