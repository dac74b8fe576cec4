"""Area under the margin (AUM), recorded while any classifier trains.

Pleiss, Zhang, Elenberg, Weinberger, "Identifying Mislabeled Data using the Area Under the Margin Ranking",
NeurIPS 2020 (arXiv 2001.10528), equation 1. A trainer creates one :class:`Margins` and calls
:meth:`Margins.update` with the logits of each training pass; nothing else of its loop changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch

from models.core.run import Run
from models.core.training import Arrays

MarginKind = Literal["logit", "probability"]


class NonFiniteLogitsError(ArithmeticError):
    """Training diverged: a logit was NaN or infinite, so that no sample can be ranked."""


def margin(logits: torch.Tensor, targets: torch.Tensor, kind: MarginKind = "logit") -> torch.Tensor:
    """Assigned logit minus the largest other logit, ``(B,)``.

    Args:
        logits: ``(B, c)`` before softmax; ``(B,)`` or ``(B, 1)`` of a binary one-logit head means ``(0, z)``.
        targets: int64 ``(B,)`` assigned classes.
        kind: ``probability`` takes the margin after softmax; the two scales must not be mixed in one ranking.
    """
    scores = _two_columns(logits)
    if kind == "probability":
        scores = scores.softmax(dim=1)
    column = targets.view(-1, 1)
    own = scores.gather(1, column).squeeze(1)
    return own - scores.scatter(1, column, float("-inf")).amax(dim=1)


def _two_columns(logits: torch.Tensor) -> torch.Tensor:
    if logits.ndim == 1:
        logits = logits.unsqueeze(1)
    return torch.cat((torch.zeros_like(logits), logits), dim=1) if logits.shape[1] == 1 else logits


class Margins:
    """Running sums of the margins of ``samples`` training samples; float64, so that their order does not matter.

    Args:
        samples: N; samples are addressed by their positions ``0..N-1``.
        classes: sums of the first ``classes`` logits are kept too (float32), for suggested labels; 0 keeps none.
        epochs: length of the kept trajectories (float16), 0 keeps none.

    Attributes:
        sums: float64 ``(N,)``. counts: int32 ``(N,)``. last: float32 ``(N,)``, the newest margin.
        logit_sums: float32 ``(N, classes)``. trajectory: float16 ``(N, epochs)``, NaN where not measured.
    """

    def __init__(
        self,
        samples: int,
        classes: int = 0,
        *,
        epochs: int = 0,
        kind: MarginKind = "logit",
        device: torch.device | str = "cpu",
    ) -> None:
        self.kind: MarginKind = kind
        self.classes = classes
        self.sums = torch.zeros(samples, dtype=torch.float64, device=device)
        self.counts = torch.zeros(samples, dtype=torch.int32, device=device)
        self.last = torch.full((samples,), float("nan"), device=device)
        self.logit_sums = torch.zeros((samples, classes), device=device)
        self.trajectory = torch.full((samples, epochs), float("nan"), dtype=torch.float16, device=device)
        self._ones = torch.ones(0, dtype=torch.int32, device=device)

    @torch.no_grad()
    def update(self, logits: torch.Tensor, targets: torch.Tensor, indices: torch.Tensor, epoch: int = 0) -> None:
        """Count one training pass of the samples ``indices`` int64 ``(B,)``; see :func:`margin` for the rest."""
        logits = _two_columns(logits.detach())
        margins = margin(logits, targets, self.kind)
        if len(self._ones) < len(indices):
            self._ones = torch.ones(len(indices), dtype=torch.int32, device=self.sums.device)
        self.sums.index_add_(0, indices, margins.double())
        self.counts.index_add_(0, indices, self._ones[: len(indices)])
        self.last[indices] = margins.float()
        if self.classes:
            self.logit_sums.index_add_(0, indices, logits[:, : self.classes].float())
        if self.trajectory.shape[1]:
            limit = torch.finfo(torch.float16).max
            self.trajectory[indices, epoch] = margins.clamp(-limit, limit).half()

    def aum(self) -> torch.Tensor:
        """Mean margin of each sample, float64 ``(N,)``; NaN for samples that were never counted.

        Raises:
            NonFiniteLogitsError: a logit was NaN or infinite.
        """
        self.check_finite()
        return self.sums / self.counts.where(self.counts > 0, torch.nan)

    def check_finite(self) -> None:
        """Look whether training diverged.

        Raises:
            NonFiniteLogitsError: a logit was NaN or infinite; names the first sample.
        """
        broken = (~torch.isfinite(self.sums)).nonzero()
        if len(broken):
            raise NonFiniteLogitsError(
                f"training diverged: the logits of sample {int(broken[0])} are not finite; lower the learning rate"
            )

    def merge(self, other: Margins) -> None:
        """Add what ``other`` counted of the same samples; its newest margins win where it has any."""
        self.sums += other.sums
        self.counts += other.counts
        self.logit_sums += other.logit_sums
        self.last = torch.where(other.counts > 0, other.last, self.last)
        self.trajectory = torch.where(other.trajectory.isnan(), self.trajectory, other.trajectory)

    def state(self) -> tuple[Arrays, dict[str, Any]]:
        """All sums as arrays, to resume from."""
        return {name: getattr(self, name).cpu().numpy().copy() for name in _STATE}, {}

    def load_state(self, arrays: Arrays, facts: Mapping[str, Any]) -> None:
        """Continue from what :meth:`state` gave."""
        for name in _STATE:
            setattr(self, name, torch.from_numpy(np.array(arrays[name])).to(self.sums.device))

    def save(self, run: Run, name: str = "margins.npz") -> None:
        """Write ``aum`` float64 ``(N,)`` and ``measurements`` int32 ``(N,)`` as an artifact of ``run``."""
        with run.artifact(name, "application/octet-stream").open("wb") as file:
            np.savez(file, aum=self.aum().cpu().numpy(), measurements=self.counts.cpu().numpy())


_STATE = ("sums", "counts", "last", "logit_sums", "trajectory")
