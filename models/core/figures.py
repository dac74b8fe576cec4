"""Measured figures of a checkpoint: the numbers that a card shows, with how they were made."""

from __future__ import annotations

import importlib.metadata
import math
import platform
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from models.core.dataset import Dataset


def library_versions() -> dict[str, str]:
    """Versions of what numeric results depend on."""
    found = {"python": platform.python_version()}
    for package in ("torch", "numpy", "scipy", "POT"):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


class Figure(BaseModel):
    """One measured quantity, with the spread over seeds when there are several."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    name: str
    value: float
    spread: float | None = Field(default=None, description="sample standard deviation over seeds")
    seeds: int = 1
    unit: str = ""
    subject: str = Field(default="method", description="`method`, or the name of the baseline measured")
    setting: str = Field(default="", description="data set, noise, size: what was measured on")
    headline: bool = Field(default=False, description="shown in the table of models")

    @property
    def text(self) -> str:
        """The value to four significant digits, or to two of its spread over seeds where there is one."""
        if self.spread is None or self.spread <= 1e-9 * abs(self.value):
            return f"{self.value:.4g}"
        decimals = max(0, 1 - math.floor(math.log10(self.spread)))
        return f"{self.value:.{decimals}f} ± {self.spread:.{decimals}f}"

    @classmethod
    def over_seeds(cls, name: str, values: Sequence[float], **fields: Any) -> Figure:
        """Mean and sample standard deviation of ``values``, one a seed."""
        spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
        return cls(name=name, value=float(np.mean(values)), spread=spread, seeds=len(values), **fields)


class Figures(BaseModel):
    """Everything that ``evaluate`` measured in one run."""

    model_config = ConfigDict(extra="forbid")
    figures: list[Figure]
    claims: list[str] = Field(default=[], description="plain sentences: what held and what did not")
    tables: dict[str, list[dict[str, float | int | str | None]]] = {}
    data_sha256: dict[str, str] = {}
    command: str = ""
    seconds: float = 0.0
    versions: dict[str, str] = Field(default_factory=library_versions)


def measured(
    dataset: Dataset | None, on_dataset: Callable[[Dataset], list[Figure]], prove: Callable[[], Figures], command: str
) -> Figures:
    """What ``evaluate`` gives: figures on the user's ``dataset``, or the proof where there is none, timed."""
    started = time.monotonic()
    if dataset is None:
        found = prove()
    else:
        found = Figures(figures=on_dataset(dataset), data_sha256={dataset.name: dataset.sha256})
    found.seconds, found.command = round(time.monotonic() - started, 1), command
    return found
