"""The method behind the contract."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor

from models.align_uniform.data import held_out_metrics, image_spec, image_tensor, split_held_out
from models.align_uniform.network import EmbeddingNetwork, open_network, principal_axes
from models.align_uniform.schema import Config, Params
from models.align_uniform.train import Problem, fit, objective, settle_batch_norms
from models.core.checkpoint import Checkpoint, CheckpointConfig
from models.core.dataset import Dataset
from models.core.encoders import encode, fold_batch_norms
from models.core.figures import Figure, Figures
from models.core.inputs import Float32, ImageSpec, UInt8
from models.core.method import Method, MethodError
from models.core.run import Run

CHUNK = 256
AXES_SAMPLES = 20_000


class AlignUniform(Method[Params, Config]):
    """An encoder of pictures trained by alignment and uniformity."""

    def __init__(self, network: EmbeddingNetwork, spec: ImageSpec, device: torch.device) -> None:
        self.network = network
        self.spec = spec
        self.device = device

    @classmethod
    def load(cls, checkpoint: Checkpoint, device: torch.device) -> AlignUniform:
        """Build the network, batch norms folded into the convolutions.

        Raises:
            CheckpointError: the checkpoint is damaged.
        """
        network, spec = open_network(checkpoint)
        fold_batch_norms(network.eval())
        network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return cls(network, spec, device)

    def predict(self, inputs: UInt8, params: Params) -> Sequence[Float32]:
        """Embed uint8 ``(N, H, W, C)``: rows of one float32 ``(N, D)`` array.

        Raises:
            MethodError: ``dimensions`` is larger than the space.
        """
        axes = self.network.penultimate_axes if params.space == "penultimate" else self.network.projection_axes
        if params.dimensions is not None and params.dimensions > len(axes):
            raise MethodError(f"dimensions: {params.space} has {len(axes)}, not {params.dimensions}")
        with torch.inference_mode():
            starts = range(0, len(inputs), CHUNK)
            chunks = [self._embed(inputs[start : start + CHUNK], params) for start in starts]
            vectors = torch.cat(chunks).cpu().numpy()
        return cast("Sequence[Float32]", vectors)

    def _embed(self, images: UInt8, params: Params) -> Tensor:
        # (N, H, W, C) seen as (N, C, H, W) is what torch calls channels-last: no second copy.
        unit = np.divide(images, np.float32(255), dtype=np.float32)
        pictures = torch.from_numpy(unit).permute(0, 3, 1, 2).to(self.device)
        return self.network.embed(
            pictures,
            projection=params.space == "projection",
            normalize=params.normalize,
            dimensions=params.dimensions,
        ).float()

    @classmethod
    def train(cls, dataset: Dataset, config: Config, run: Run) -> Checkpoint:
        """Train on unlabelled pictures, grey or colour, of any size.

        Raises:
            MethodError: not pictures, too few of them, or the training diverged.
            Cancelled: the user asked for it.
        """
        run.progress(0.0, "prepare", f"{len(dataset)} samples")
        spec = image_spec(dataset, config)
        images, held = split_held_out(image_tensor(dataset, spec), run.seed)
        torch.manual_seed(run.seed)
        network = EmbeddingNetwork(config, spec.channels)
        measure = held_out_metrics(network, held, config, run.device)
        steps = len(images) // min(config.batch_size, len(images)) * config.epochs
        problem = Problem(network, images, lambda x, y, _: _loss(network, x, y, config), measure, steps)
        fit(problem, config, run)
        run.progress(0.98, "batch norms and principal axes")
        settle_batch_norms(network, images, config, run)
        set_axes(network, images, run.device)
        values = measure()
        return Checkpoint.write(
            run.scratch / "checkpoint",
            checkpoint_config(network, config, spec, dataset, run.seed),
            network.state_dict(),
            Figures(
                figures=[
                    Figure(name=f"L_{name}", value=value, setting=f"{len(held)} held-out pictures, projection")
                    for name, value in values.items()
                ],
                data_sha256={dataset.name or "dataset": dataset.sha256},
            ),
        )

    @classmethod
    def evaluate(cls, checkpoint: Checkpoint, run: Run, dataset: Dataset | None = None) -> Figures:
        """Measure the proof's encoders and this checkpoint again; with ``dataset``, this checkpoint on it."""
        from models.align_uniform.evaluate import evaluate_on, prove

        return prove(checkpoint, run) if dataset is None else evaluate_on(checkpoint, run, dataset)


def _loss(network: EmbeddingNetwork, x: Tensor, y: Tensor, config: Config) -> tuple[Tensor, dict[str, float]]:
    first, second = network(torch.cat([x, y])).chunk(2)
    return objective(first, second, config)


def set_axes(network: EmbeddingNetwork, images: Tensor, device: str) -> None:
    """Compute the principal axes of both spaces on (at most 20,000 of) the training pictures, not augmented."""
    penultimate = encode(network.encoder, images[:AXES_SAMPLES], device=device)
    network.eval()
    with torch.inference_mode():
        projection = network.head(penultimate.to(device)).cpu()
    network.penultimate_axes.copy_(principal_axes(penultimate))
    network.projection_axes.copy_(principal_axes(projection))


def checkpoint_config(
    network: EmbeddingNetwork, config: Config, spec: ImageSpec, dataset: Dataset, seed: int
) -> CheckpointConfig:
    """What ``config.json`` says of a trained network."""
    sizes = {"penultimate": len(network.penultimate_axes), "projection": len(network.projection_axes)}
    return CheckpointConfig(
        method="align-uniform",
        input=spec,
        config=config.model_dump(),
        outputs={
            "dimensions": sizes["penultimate"],
            "dimensions_by_space": sizes,
            "truncation": "honoured: 1 up to the length of the space, on principal axes",
        },
        data_sha256=dataset.sha256,
        seed=seed,
        command="deepnight train align-uniform",
    )
