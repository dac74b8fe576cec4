"""Random views of pictures, one batch at a time: crop, flip, colour jitter, greyscale.

The random numbers come from the device of the generator. One on the CPU means the same views whatever the device of
the pictures; one on the device of the pictures spares a copy, which waits for all work that is queued there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
_YIQ = ((0.299, 0.587, 0.114), (0.595716, -0.274453, -0.321263), (0.211456, -0.522591, 0.311135))


@dataclass(frozen=True)
class ViewPolicy:
    """How a view is drawn.

    Attributes:
        size: height and width of the view in pixels.
        crop_scale: smallest share of the picture's area that a crop keeps; the largest is 1.
        flip: probability of a horizontal flip.
        jitter: strength of brightness, contrast, saturation and hue (the last two on colour only):
            factors in ``[1 - jitter, 1 + jitter]``, hue angles in ``jitter * [-pi, pi]``.
        jitter_probability: share of the views that are jittered.
        grey: probability that a colour view loses its colour.
    """

    size: int
    crop_scale: float = 0.3
    flip: float = 0.5
    jitter: float = 0.4
    jitter_probability: float = 0.8
    grey: float = 0.2


def to_unit(images: Tensor) -> Tensor:
    """Bytes 0..255 (or floats that are already in [0, 1]) as float32 in [0, 1]; the shape is kept."""
    return images.float() / 255 if images.dtype == torch.uint8 else images.float()


def augment(images: Tensor, policy: ViewPolicy, generator: torch.Generator) -> Tensor:
    """One random view of each picture.

    Args:
        images: uint8, or float in [0, 1], ``(B, C, H, W)`` with C 1 or 3.
        generator: on the CPU or the device of ``images``; it is advanced by the same amount for every batch of this
            size and channel count.

    Returns:
        float32 ``(B, C, size, size)`` in [0, 1] on the device of ``images``.
    """
    views = random_resized_crop(to_unit(images), policy, generator)
    if policy.jitter > 0:
        views = colour_jitter(views, policy, generator)
    if images.shape[1] == 3 and policy.grey > 0:
        chosen = uniform((len(images),), generator, views.device) < policy.grey
        views = torch.where(chosen.view(-1, 1, 1, 1), _grey(views), views)
    return views


def random_resized_crop(images: Tensor, policy: ViewPolicy, generator: torch.Generator) -> Tensor:
    """Crop of random area, aspect ratio (3/4 to 4/3, log-uniform) and place, mirrored at random, resized bilinearly.

    Args:
        images: float32 ``(B, C, H, W)``.
    """
    count = len(images)
    area, ratio, across, down, mirror = uniform((5, count), generator, images.device)
    area = policy.crop_scale + (1 - policy.crop_scale) * area
    aspect = torch.exp((2 * ratio - 1) * math.log(4 / 3))
    width, height = torch.sqrt(area * aspect).clamp_max(1), torch.sqrt(area / aspect).clamp_max(1)
    theta = torch.zeros((count, 2, 3), device=images.device)
    theta[:, 0, 0] = torch.where(mirror < policy.flip, -width, width)
    theta[:, 1, 1] = height
    theta[:, 0, 2] = (2 * across - 1) * (1 - width)
    theta[:, 1, 2] = (2 * down - 1) * (1 - height)
    grid = F.affine_grid(theta, [count, images.shape[1], policy.size, policy.size], align_corners=False)
    return F.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def colour_jitter(images: Tensor, policy: ViewPolicy, generator: torch.Generator) -> Tensor:
    """Brightness, then contrast, then (on colour) saturation and hue.

    Hue is a rotation of the chroma plane in YIQ, which is linear and hence one matrix a picture.

    Args:
        images: float32 ``(B, C, H, W)`` in [0, 1].
    """
    count, channels = images.shape[:2]
    draws = uniform((5, count), generator, images.device)
    applied = (draws[0] < policy.jitter_probability).view(-1, 1, 1, 1)
    brightness, contrast, saturation = (1 + policy.jitter * (2 * draws[1:4] - 1)).view(3, -1, 1, 1, 1)
    changed = (images * brightness).clamp(0, 1)
    mean = _grey(changed).mean(dim=(1, 2, 3), keepdim=True)
    changed = (mean + contrast * (changed - mean)).clamp(0, 1)
    if channels == 3:
        grey = _grey(changed)
        changed = (grey + saturation * (changed - grey)).clamp(0, 1)
        turned = _hue_matrices(math.pi * policy.jitter * (2 * draws[4] - 1)) @ changed.flatten(2)
        changed = turned.view_as(images).clamp(0, 1)
    return torch.where(applied, changed, images)


def _hue_matrices(angles: Tensor) -> Tensor:
    """RGB matrices ``(B, 3, 3)`` that rotate the chroma by ``angles`` (B,) radians and keep the luma."""
    forward = torch.tensor(_YIQ, device=angles.device)
    rotation = torch.zeros((len(angles), 3, 3), device=angles.device)
    rotation[:, 0, 0] = 1
    rotation[:, 1, 1] = rotation[:, 2, 2] = torch.cos(angles)
    rotation[:, 1, 2] = -torch.sin(angles)
    rotation[:, 2, 1] = torch.sin(angles)
    matrices: Tensor = torch.linalg.inv(forward) @ rotation @ forward
    return matrices


def _grey(images: Tensor) -> Tensor:
    if images.shape[1] == 1:
        return images
    weights = torch.tensor(_LUMA, device=images.device).view(1, 3, 1, 1)
    grey: Tensor = (images * weights).sum(dim=1, keepdim=True)
    return grey


def uniform(shape: tuple[int, ...], generator: torch.Generator, device: torch.device) -> Tensor:
    """Float32 numbers in [0, 1) drawn where ``generator`` lives, on ``device``."""
    return torch.rand(shape, generator=generator, device=generator.device).to(device)
