"""The method behind the contract."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor

from models.align_uniform.data import (
    fixed_pairs,
    fixed_text_pairs,
    held_out_metrics,
    image_spec,
    image_tensor,
    split_held_out,
    text_tensor,
)
from models.align_uniform.network import EmbeddingNetwork, open_network, principal_axes
from models.align_uniform.schema import Config, Params
from models.align_uniform.train import (
    Problem,
    View,
    fit,
    objective,
    picture_view,
    policy,
    settle_batch_norms,
    text_view,
)
from models.align_uniform.words import BagOfWords, token_matrix
from models.core.checkpoint import Checkpoint, CheckpointConfig
from models.core.dataset import Dataset
from models.core.encoders import encode, fold_batch_norms
from models.core.figures import Figure, Figures
from models.core.inputs import Float32, ImageSpec, TextSpec, UInt8
from models.core.method import Method, MethodError
from models.core.run import Run

CHUNK = 256
AXES_SAMPLES = 20_000
TEXT_RATE = 3e-4


class AlignUniform(Method[Params, Config]):
    """An encoder of pictures or texts trained by alignment and uniformity."""

    def __init__(self, network: EmbeddingNetwork, config: Config, device: torch.device) -> None:
        self.network = network
        self.config = config
        self.device = device

    @classmethod
    def load(cls, checkpoint: Checkpoint, device: torch.device) -> AlignUniform:
        """Build the network, batch norms folded into the convolutions.

        Raises:
            CheckpointError: the checkpoint is damaged.
        """
        network, _ = open_network(checkpoint)
        fold_batch_norms(network.eval())
        network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return cls(network, Config.model_validate(checkpoint.config.config), device)

    def predict(self, inputs: UInt8 | Sequence[str], params: Params) -> Sequence[Float32]:
        """Embed uint8 pictures ``(N, H, W, C)`` or N texts: rows of one float32 ``(N, D)`` array.

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

    def _embed(self, inputs: UInt8 | Sequence[str], params: Params) -> Tensor:
        if isinstance(inputs, np.ndarray):
            # (N, H, W, C) seen as (N, C, H, W) is what torch calls channels-last: no second copy.
            tensor = torch.from_numpy(np.divide(inputs, np.float32(255), dtype=np.float32)).permute(0, 3, 1, 2)
        else:
            tensor = token_matrix(inputs, self.config.word_buckets, self.config.max_words)
        return self.network.embed(
            tensor.to(self.device),
            projection=params.space == "projection",
            normalize=params.normalize,
            dimensions=params.dimensions,
        ).float()

    @classmethod
    def train(cls, dataset: Dataset, config: Config, run: Run) -> Checkpoint:
        """Train on unlabelled pictures, grey or colour, of any size, or on texts.

        Raises:
            MethodError: neither pictures nor texts, too few of them, or the training diverged.
            Cancelled: the user asked for it.
        """
        run.progress(0.0, "prepare", f"{len(dataset)} samples")
        if dataset.kind == "text":
            return _train_text(dataset, config, run)
        spec = image_spec(dataset, config)
        images, held = split_held_out(image_tensor(dataset, spec), run.seed)
        torch.manual_seed(run.seed)
        network = EmbeddingNetwork(config, spec.channels)
        measure = held_out_metrics(network, fixed_pairs(held, policy(config)), config, run.device)
        problem = _problem(network, len(images), picture_view(images, config, run.device), measure, config)
        return _train(problem, network, images, f"{len(held)} held-out pictures", spec, dataset, config, run)

    @classmethod
    def evaluate(cls, checkpoint: Checkpoint, run: Run, dataset: Dataset | None = None) -> Figures:
        """Measure this checkpoint and what the paper compares; with ``dataset``, this checkpoint on it.

        Pictures: the encoders of ``weights/proof``. Texts: trains the method and its baselines on package descriptions.
        """
        from models.align_uniform.evaluate import evaluate_on, prove

        return prove(checkpoint, run) if dataset is None else evaluate_on(checkpoint, run, dataset)


def _train_text(dataset: Dataset, config: Config, run: Run) -> Checkpoint:
    if config.lr is None and config.optimizer == "adam":
        config = config.model_copy(update={"lr": TEXT_RATE})
    tokens, held = split_held_out(text_tensor(dataset, config), run.seed)
    torch.manual_seed(run.seed)
    network = EmbeddingNetwork(config, None)
    assert isinstance(network.encoder, BagOfWords)
    network.encoder.start_from(tokens, run.seed)
    measure = held_out_metrics(network, fixed_text_pairs(held, config), config, run.device)
    problem = _problem(network, len(tokens), text_view(tokens, config, run.device), measure, config)
    return _train(problem, network, tokens, f"{len(held)} held-out texts", TextSpec(), dataset, config, run)


def _problem(
    network: EmbeddingNetwork, count: int, view: View, measure: Callable[[], dict[str, float]], config: Config
) -> Problem:
    steps = count // min(config.batch_size, count) * config.epochs
    return Problem(network, count, view, lambda x, y, _: _loss(network, x, y, config), measure, steps)


def _train(
    problem: Problem,
    network: EmbeddingNetwork,
    inputs: Tensor,
    held: str,
    spec: ImageSpec | TextSpec,
    dataset: Dataset,
    config: Config,
    run: Run,
) -> Checkpoint:
    fit(problem, config, run)
    run.progress(0.98, "batch norms and principal axes")
    settle_batch_norms(problem, config, run)
    set_axes(network, inputs, run.device)
    figures = [
        Figure(name=f"L_{name}", value=value, setting=f"{held}, projection")
        for name, value in problem.held_out().items()
    ]
    return Checkpoint.write(
        run.scratch / "checkpoint",
        checkpoint_config(network, config, spec, dataset, run.seed),
        network.state_dict(),
        Figures(figures=figures, data_sha256={dataset.name or "dataset": dataset.sha256}),
    )


def _loss(network: EmbeddingNetwork, x: Tensor, y: Tensor, config: Config) -> tuple[Tensor, dict[str, Tensor]]:
    first, second = network(torch.cat([x, y])).chunk(2)
    return objective(first, second, config)


def set_axes(network: EmbeddingNetwork, inputs: Tensor, device: str) -> None:
    """Compute the principal axes of both spaces on (at most 20,000 of) the training pictures, not augmented."""
    penultimate = encode(network.encoder, inputs[:AXES_SAMPLES], device=device)
    network.eval()
    with torch.inference_mode():
        projection = network.head(penultimate.to(device)).cpu()
    network.penultimate_axes.copy_(principal_axes(penultimate))
    network.projection_axes.copy_(principal_axes(projection))


def checkpoint_config(
    network: EmbeddingNetwork, config: Config, spec: ImageSpec | TextSpec, dataset: Dataset, seed: int
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
