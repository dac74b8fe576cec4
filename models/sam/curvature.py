"""Curvature of a loss at the weights of a network: products with the Hessian, its ends and its trace."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from models.core.inputs import Float64

Product = Callable[[Tensor], Tensor]


def trainable(module: nn.Module) -> list[Tensor]:
    """What derivatives are taken of.

    Raises:
        ValueError: the module has no parameter.
    """
    parameters: list[Tensor] = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if not parameters:
        raise ValueError("the network has no parameters")
    return parameters


def flatten(tensors: list[Tensor] | tuple[Tensor, ...]) -> Tensor:
    """All entries as one vector, ``(d,)``."""
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def hessian_product(parameters: list[Tensor], loss: Tensor) -> Product:
    """The map ``v -> H v`` of vectors ``(d,)`` by double backward; ``loss`` must carry its graph."""
    gradients = torch.autograd.grad(loss, parameters, create_graph=True, materialize_grads=True)
    flat = flatten(gradients)

    def product(vector: Tensor) -> Tensor:
        parts = torch.autograd.grad(flat @ vector, parameters, retain_graph=True, materialize_grads=True)
        return flatten(parts)

    return product


@dataclass(frozen=True, eq=False)
class Ends:
    """Ends of a spectrum.

    Attributes:
        values: float64, the Ritz values by falling size; the first and the last ones have converged.
        residual: ``|H u - values[0] u|`` of the largest one.
    """

    values: Float64
    residual: float

    def largest(self, rank: int) -> float:
        """The eigenvalue of the 1-based ``rank``, the least one there is where there are fewer."""
        return float(self.values[min(rank, len(self.values)) - 1])


def spectrum_ends(product: Product, start: Tensor, iterations: int) -> Ends:
    """Lanczos iteration with full reorthogonalisation from ``start`` ``(d,)``, at most ``d`` steps.

    Power iteration converges to the eigenvalue of largest modulus, which may be negative; this gives both ends.
    """
    basis = torch.empty(min(iterations, len(start)), len(start), dtype=start.dtype, device=start.device)
    vector = start / start.norm()
    diagonal: list[float] = []
    beside: list[float] = []
    for step in range(len(basis)):
        basis[step] = vector
        image = product(vector)
        diagonal.append(float(image @ vector))
        for _ in range(2):  # once is not enough in single precision
            image = image - basis[: step + 1].T @ (basis[: step + 1] @ image)
        size = float(image.norm())
        beside.append(size)
        if size <= 1e-7 * max(1e-30, *(abs(value) for value in diagonal)):
            break
        vector = image / size
    tridiagonal = np.diag(diagonal) + np.diag(beside[:-1], 1) + np.diag(beside[:-1], -1)
    values, vectors = np.linalg.eigh(tridiagonal)
    return Ends(values[::-1].copy(), abs(beside[-1] * float(vectors[-1, -1])))


def hutchinson_trace(product: Product, like: Tensor, probes: int, generator: torch.Generator) -> tuple[float, float]:
    """Estimate of the trace and its standard error from random signs (Hutchinson, 1990).

    Args:
        like: a vector of the size, type and device that ``product`` takes.
        probes: sign vectors, two or more.
    """
    samples = []
    for _ in range(probes):
        signs = (2 * torch.randint(0, 2, like.shape, generator=generator) - 1).to(like)
        samples.append(float(signs @ product(signs)))
    return float(np.mean(samples)), float(np.std(samples, ddof=1) / np.sqrt(probes))
