"""From a user's data set to the tensors that this method trains on and measures."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from models.align_uniform import losses
from models.align_uniform.schema import Config
from models.align_uniform.words import NO_WORD, token_matrix, word_view
from models.core.augment import ViewPolicy, augment
from models.core.dataset import Dataset
from models.core.encoders import encode
from models.core.inputs import ImageSpec
from models.core.method import MethodError

MINIMUM = 64
HELD_OUT_SEED = 20_200_520


def image_spec(dataset: Dataset, config: Config) -> ImageSpec:
    """What a model trained on ``dataset`` takes.

    Raises:
        MethodError: the data set holds no pictures, or too few.
    """
    if dataset.kind != "images":
        raise MethodError(f"dataset: align-uniform trains on images or text, this data set holds {dataset.kind}")
    if len(dataset) < MINIMUM:
        raise MethodError(f"dataset: at least {MINIMUM} pictures are needed, this one has {len(dataset)}")
    colour = config.channels == "colour"
    if config.channels == "auto":
        colour = any(np.ndim(picture) == 3 and np.shape(picture)[2] >= 3 for picture in dataset.inputs)
    return ImageSpec(height=config.image_size, width=config.image_size, channels=3 if colour else 1)


def text_tensor(dataset: Dataset, config: Config) -> Tensor:
    """All texts as hash buckets of their words: int32 ``(N, L)``.

    Raises:
        MethodError: too few texts, or none has a word.
    """
    if len(dataset) < MINIMUM:
        raise MethodError(f"dataset: at least {MINIMUM} texts are needed, this one has {len(dataset)}")
    tokens = token_matrix(dataset.texts(), config.word_buckets, config.max_words)
    if int(tokens.max()) == NO_WORD:
        raise MethodError("dataset: no text has a word")
    return tokens


def image_tensor(dataset: Dataset, spec: ImageSpec) -> Tensor:
    """All pictures fitted to ``spec``: uint8 ``(N, C, H, W)``."""
    return torch.from_numpy(np.array(dataset.images(spec))).permute(0, 3, 1, 2)


def split_held_out(samples: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Training samples, and at most 512 (a tenth) that are only measured."""
    order = torch.randperm(len(samples), generator=torch.Generator().manual_seed(seed))
    held = min(512, len(samples) // 10)
    return samples[order[held:]], samples[order[:held]]


def fixed_pairs(images: Tensor, views: ViewPolicy, seed: int = HELD_OUT_SEED) -> tuple[Tensor, Tensor]:
    """Two views of each picture that are the same at every call: float32 ``(N, C, size, size)``."""
    generator = torch.Generator().manual_seed(seed)
    return augment(images, views, generator), augment(images, views, generator)


def fixed_text_pairs(tokens: Tensor, config: Config, seed: int = HELD_OUT_SEED) -> tuple[Tensor, Tensor]:
    """Two views of each text that are the same at every call: int32 ``(N, L)``."""
    generator = torch.Generator().manual_seed(seed)
    first, second = (word_view(tokens, config.crop_scale, config.word_dropout, generator) for _ in range(2))
    return first, second


def held_out_metrics(
    module: nn.Module, pair: tuple[Tensor, Tensor], config: Config, device: str
) -> Callable[[], dict[str, float]]:
    """L_align and L_uniform of ``module`` on two fixed views of held-out samples, computed when called."""
    first, second = pair

    def measure() -> dict[str, float]:
        x, y = (encode(module, views, device=device) for views in (first, second))
        return {
            "align": losses.alignment(x, y, config.alpha).item(),
            "uniform": losses.uniformity(x, config.t).item(),
        }

    return measure
