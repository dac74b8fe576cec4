"""Measuring the cells of the proof: the samples of each way of sampling beside as many real pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.core.dataset import Dataset
from models.core.run import Run
from models.guided_diffusion.fast import FastDenoiser, fast_guide
from models.guided_diffusion.judge import Judgement, to_pictures
from models.guided_diffusion.measuring import Quality, draw_pictures, image_spec, judged, quality, spread_draws
from models.guided_diffusion.method import GuidedDiffusion
from models.guided_diffusion.plan import Cell, Guide, Plan
from models.guided_diffusion.versions import Classify, Networks

SEED_STRIDE = 1_000_000  # between the pictures' seeds of two sampling seeds


@dataclass(frozen=True)
class Measured:
    """A cell and the quality of its samples; ``device`` is what drew them."""

    cell: Cell
    quality: Quality
    device: str

    def row(self) -> dict[str, float | int | str | None]:
        """A row of the table of cells."""
        cell, p = self.cell, self.cell.params
        chosen = p.model_dump(
            include={"unconditional", "sampler", "eta", "variance", "guidance_at", "steps", "guidance_scale"}
        )
        facts = {"guide": cell.guide, "seed": cell.seed, "samples": cell.samples, "device": self.device}
        return {"group": cell.group, **chosen, **facts, **asdict(self.quality)}


class Bench:
    """What cells are measured with: a version, its guides, and as many real pictures as a cell has samples.

    Args:
        clean: the guide that was trained on clean pictures, where a cell asks for it.
    """

    def __init__(self, networks: Networks, test: Dataset, plan: Plan, clean: Classify | None = None) -> None:
        self.networks, self.plan = networks, plan
        self.device = device_name(networks.device)
        guides: dict[Guide, Classify | None] = {"noisy": networks.classifier, "clean": clean}
        if plan.precision != "float32":
            networks = replace(networks, denoiser=FastDenoiser(networks, plan.precision))
            guides = {name: fast_guide(guide, networks.device, plan.precision) for name, guide in guides.items()}
        if (own := guides["noisy"]) is not None:
            guides["blind"] = lambda x, t: own(x, torch.zeros_like(t))
        self._methods = {name: GuidedDiffusion(replace(networks, classifier=guide)) for name, guide in guides.items()}
        self._test = test
        self._real: dict[int, Judgement] = {}

    def samples(self, cell: Cell, report: Callable[[float], None]) -> Tensor:
        """The samples of ``cell``, float32 ``(N, C, H, W)``."""
        draws = spread_draws(cell.samples, len(self.networks.class_names), SEED_STRIDE * cell.seed)
        return draw_pictures(self._methods[cell.guide].samples, draws, cell.params, report, self.plan.batch)

    def measure(self, cell: Cell, report: Callable[[float], None] = lambda share: None) -> Measured:
        """Draw and measure ``cell``."""
        drawn = judged(self.networks, to_pictures(self.samples(cell, report)))
        asked = np.arange(cell.samples) % len(self.networks.class_names)
        return Measured(cell, quality(self.real(cell.samples), drawn, asked, self.networks.device), self.device)

    def real(self, count: int) -> Judgement:
        """What the judge sees in ``count`` real pictures."""
        if count not in self._real:
            rows = np.random.default_rng(0).permutation(len(self._test))[:count]
            self._real[count] = judged(self.networks, self._test.select(rows).images(image_spec(self.networks)))
        return self._real[count]


def measure_cells(bench: Bench, cells: Sequence[Cell], run: Run) -> list[Measured]:
    """Measure every cell; the run's resume point holds those that are done.

    Raises:
        Cancelled: the user asked for it.
    """
    state = run.load_state()
    done: dict[str, dict[str, Any]] = {} if state is None else dict(state[1]["cells"])
    total = sum(cell.work for cell in cells)
    before = 0.0
    for cell in cells:
        if cell.name not in done:

            def report(share: float, before: float = before, cell: Cell = cell) -> None:
                run.progress(0.9 * (before + share * cell.work) / total, "draw", cell.name)

            done[cell.name] = to_json(bench.measure(cell, report))
            run.log(f"{cell.name}: FID {done[cell.name]['fid']:.2f}")
            run.save_state({}, {"cells": done})
        before += cell.work
    return list(from_json(cells, done))


def to_json(measured: Measured) -> dict[str, Any]:
    """What is kept of a measured cell beside its name."""
    return {**asdict(measured.quality), "device": measured.device}


def from_json(cells: Iterable[Cell], done: Mapping[str, Mapping[str, Any]]) -> Iterator[Measured]:
    """The ``cells`` that were kept, from :func:`to_json` by name."""
    for cell in cells:
        if cell.name in done:
            kept = dict(done[cell.name])
            device = str(kept.pop("device"))
            yield Measured(cell, Quality(**kept), device)


def device_name(device: torch.device) -> str:
    """The device as its maker calls it; ``CPU``."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type.upper()
