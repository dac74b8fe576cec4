"""Which steps a batch is trained on: uniformly drawn, or by their loss (Nichol & Dhariwal 2021, section 3.3)."""

from __future__ import annotations

import torch
from torch import Tensor

HISTORY = 10
UNIFORM_SHARE = 0.001


class UniformSteps:
    """Every step equally often."""

    def __init__(self, total: int) -> None:
        self.total = total

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Steps int64 ``(count,)`` and their weights, all one, on the generator's device."""
        device = generator.device
        return torch.randint(self.total, (count,), generator=generator, device=device), torch.ones(count, device=device)

    def update(self, t: Tensor, losses: Tensor) -> None:
        """Nothing depends on the losses."""

    def state(self) -> dict[str, Tensor]:
        """What a resume point keeps: nothing."""
        return {}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take back what :meth:`state` gave."""


class LossSecondMomentSteps(UniformSteps):
    """Steps in proportion to ``sqrt(E[L_t^2])`` over each one's last ten losses; uniform until all have ten."""

    def __init__(self, total: int) -> None:
        super().__init__(total)
        self.history = torch.zeros(total, HISTORY, dtype=torch.float64)
        self.counts = torch.zeros(total, dtype=torch.int64)

    def probabilities(self) -> Tensor:
        """Float64 ``(T,)``, summing to one."""
        uniform = torch.full((self.total,), 1 / self.total, dtype=torch.float64)
        if (self.counts < HISTORY).any():
            return uniform
        weights = self.history.square().mean(dim=1).sqrt()
        return (1 - UNIFORM_SHARE) * weights / weights.sum() + UNIFORM_SHARE * uniform

    def draw(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Steps int64 ``(count,)`` and the weights ``1 / (T p_t)`` that keep the expected loss what it was."""
        probabilities = self.probabilities().to(generator.device)
        t = torch.multinomial(probabilities, count, replacement=True, generator=generator)
        return t, (1 / (self.total * probabilities[t])).float()

    def update(self, t: Tensor, losses: Tensor) -> None:
        """Remember the losses ``(B,)`` of steps ``t`` int64 ``(B,)``."""
        for step, loss in zip(t.tolist(), losses.double().tolist(), strict=True):
            self.history[step, self.counts[step] % HISTORY] = loss
            self.counts[step] += 1

    def state(self) -> dict[str, Tensor]:
        """History ``(T, 10)`` and counts ``(T,)``."""
        return {"history": self.history, "counts": self.counts}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take back what :meth:`state` gave."""
        self.history, self.counts = state["history"], state["counts"]
