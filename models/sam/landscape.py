"""How a loss changes around the weights: the worst and a random direction of a length, and slices through it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from models.core.inputs import Float64
from models.core.optim import perturbation

Loss = Callable[[], Tensor]
Direction = list[Tensor]
ASCENT_STEPS, RANDOM_DRAWS = 20, 10


@contextmanager
def moved(parameters: Sequence[Tensor], offsets: Sequence[Tensor]) -> Iterator[None]:
    """Weights plus ``offsets`` inside, exactly the weights afterwards."""
    copies = [weight.detach().clone() for weight in parameters]
    with torch.no_grad():
        for weight, offset in zip(parameters, offsets, strict=True):
            weight.add_(offset)
    try:
        yield
    finally:
        with torch.no_grad():
            for weight, copy in zip(parameters, copies, strict=True):
                weight.copy_(copy)


def loss_at(parameters: Sequence[Tensor], offsets: Sequence[Tensor], loss: Loss) -> float:
    """The loss at the moved weights."""
    with moved(parameters, offsets), torch.no_grad():
        return float(loss())


def _ascent(parameters: Sequence[Tensor], loss: Loss, length: float) -> Direction:
    gradients = torch.autograd.grad(loss(), list(parameters), materialize_grads=True)
    return perturbation(gradients, length)


def worst_increase(parameters: Sequence[Tensor], loss: Loss, rho: float, steps: int) -> float:
    """Largest rise of the loss found on the ball of radius ``rho`` by projected gradient ascent.

    One step goes all the way along the gradient, as SAM does; more are a quarter of the radius each.
    """
    base = loss_at(parameters, [torch.zeros_like(weight) for weight in parameters], loss)
    offsets: Direction = [torch.zeros_like(weight) for weight in parameters]
    found = 0.0
    for _ in range(steps):
        with moved(parameters, offsets):
            step = _ascent(parameters, loss, rho if steps == 1 else rho / 4)
        offsets = [offset + part for offset, part in zip(offsets, step, strict=True)]
        norm = float(torch.nn.utils.get_total_norm(offsets))
        offsets = [offset * min(1.0, rho / max(norm, 1e-30)) for offset in offsets]
        found = max(found, loss_at(parameters, offsets, loss) - base)
    return found


def random_increase(
    parameters: Sequence[Tensor], loss: Loss, rho: float, generator: torch.Generator
) -> tuple[float, float]:
    """Mean rise of the loss at distance ``rho`` in ten random directions, and its standard error."""
    base = loss_at(parameters, [torch.zeros_like(weight) for weight in parameters], loss)
    rises = []
    for _ in range(RANDOM_DRAWS):
        drawn = _normal(parameters, generator)
        norm = float(torch.nn.utils.get_total_norm(drawn))
        rises.append(loss_at(parameters, [rho / norm * part for part in drawn], loss) - base)
    return float(np.mean(rises)), float(np.std(rises, ddof=1) / np.sqrt(RANDOM_DRAWS))


def _normal(parameters: Sequence[Tensor], generator: torch.Generator) -> Direction:
    return [torch.randn(weight.shape, generator=generator).to(weight) for weight in parameters]


def filter_normalised(parameters: Sequence[Tensor], generator: torch.Generator) -> Direction:
    """A random direction whose filters have the norms of the weights' filters (Li et al., NeurIPS 2018, section 4).

    A filter is a row of the first axis; biases and the scales of normalisation do not move.
    """
    direction = []
    for weight, drawn in zip(parameters, _normal(parameters, generator), strict=True):
        if weight.ndim < 2:
            direction.append(torch.zeros_like(weight))
            continue
        sizes = [part.detach().flatten(1).norm(dim=1) for part in (weight, drawn)]
        scale = sizes[0] / sizes[1].clamp_min(1e-30)
        direction.append(drawn * scale.view(-1, *(1 for _ in drawn.shape[1:])))
    return direction


def slices(
    parameters: Sequence[Tensor], loss: Loss, span: float, points: int, generator: torch.Generator
) -> tuple[Float64, Float64]:
    """Positions ``(P,)`` in ``[-span, span]`` and the loss on the plane of two such directions, ``(P, P)``.

    Row ``i``, column ``j`` lie at position ``i`` of the second and ``j`` of the first direction.
    """
    first, second = (filter_normalised(parameters, generator) for _ in range(2))
    positions = np.linspace(-span, span, points)
    plane = np.empty((points, points))
    for row, b in enumerate(positions):
        for column, a in enumerate(positions):
            offsets = [a * one + b * other for one, other in zip(first, second, strict=True)]
            plane[row, column] = loss_at(parameters, offsets, loss)
    return positions, plane
