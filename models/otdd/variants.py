"""The data sets of the proofs: real ones, and what a known change makes of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from PIL import Image, ImageFilter

from models.core import sources
from models.core.dataset import Dataset
from models.core.inputs import ImageSpec, UInt8
from models.core.noise import corrupt_labels
from models.core.outputs import Side
from models.core.transport.clouds import side

SPEC = ImageSpec(height=28, width=28, channels=1)


def original(name: str, count: int, seed: int, split: str = "all") -> Dataset:
    """``count`` random pictures of a named data set in 28 x 28.

    MNIST's digits lie in the inner 20 x 20; the 8 x 8 digits fill their frame, and are brought to that size first.
    """
    dataset = sources.load(name, split)
    rows = np.random.default_rng(seed).permutation(len(dataset))[:count]
    chosen = dataset.select(rows)
    if name != "digits-8x8":
        return replace(chosen, inputs=chosen.images(SPEC))
    inner = chosen.images(ImageSpec(height=20, width=20, channels=1))
    return replace(chosen, inputs=np.pad(inner, ((0, 0), (4, 4), (4, 4), (0, 0))))


def coarse_digits(name: str, count: int, seed: int) -> Dataset:
    """``count`` random digits in 8 x 8: MNIST's as the 8 x 8 digits were made, by averages over a grid.

    What the coarser pictures lack cannot be made up for them, so this is where the two collections compare best.
    """
    dataset = sources.load(name, "all")
    chosen = dataset.select(np.random.default_rng(seed).permutation(len(dataset))[:count])
    if name == "digits-8x8":
        return chosen
    boxes = np.asarray(chosen.inputs)[:, 4:24, 4:24, 0]
    averaged = [np.asarray(Image.fromarray(box).resize((8, 8), Image.Resampling.BOX)) for box in boxes]
    return replace(chosen, inputs=np.stack(averaged)[..., None])


def rotated(dataset: Dataset, degrees: float) -> Dataset:
    """Every picture turned about its centre, on black."""
    return _mapped(dataset, lambda p: p.rotate(degrees, Image.Resampling.BILINEAR), f"rotated {degrees:g}")


def blurred(dataset: Dataset, radius: float = 2.0) -> Dataset:
    """Every picture under a Gaussian blur."""
    return _mapped(dataset, lambda p: p.filter(ImageFilter.GaussianBlur(radius)), "blurred")


def inverted(dataset: Dataset) -> Dataset:
    """Black for white."""
    return replace(dataset, inputs=255 - dataset.images(SPEC), name=f"{dataset.name}, inverted")


def noisy(dataset: Dataset, deviation: float = 0.3) -> Dataset:
    """Every picture under Gaussian noise, cut off at black and white."""
    pictures = dataset.images(SPEC)
    noise = np.random.default_rng(0).normal(0.0, 255.0 * deviation, pictures.shape)
    changed = np.clip(np.rint(pictures + noise), 0, 255).astype(np.uint8)
    return replace(dataset, inputs=changed, name=f"{dataset.name}, noisy")


def of_classes(dataset: Dataset, count: int) -> Dataset:
    """The first ``count`` classes alone."""
    kept = dataset.select(np.flatnonzero(dataset.require_labels() < count))
    return replace(kept, class_names=kept.class_names[:count], name=f"{dataset.name}, {count} classes")


def relabelled(dataset: Dataset, share: float, seed: int) -> Dataset:
    """A share of the labels replaced by random other ones."""
    labels = corrupt_labels(dataset.require_labels(), len(dataset.class_names), kind="uniform", rate=share, seed=seed)
    return replace(dataset, labels=labels, name=f"{dataset.name}, {share:.0%} wrong labels")


def cloud(dataset: Dataset) -> Side:
    """The data set as one side of a distance."""
    return side(dataset, SPEC)


def _mapped(dataset: Dataset, change: Callable[[Image.Image], Image.Image], what: str) -> Dataset:
    pictures: UInt8 = dataset.images(SPEC)
    changed = np.stack([np.asarray(change(Image.fromarray(p[:, :, 0]))) for p in pictures])[..., None]
    return replace(dataset, inputs=changed, name=f"{dataset.name}, {what}")
