"""The cells of the proof: one way of sampling each, with its samples measured against real pictures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.core.dataset import Dataset
from models.core.run import Run
from models.guided_diffusion.judge import Judgement, to_pictures
from models.guided_diffusion.measuring import Quality, draw_pictures, image_spec, judged, quality, spread_draws
from models.guided_diffusion.method import GuidedDiffusion
from models.guided_diffusion.schema import Params

SAMPLES = 200
SCALES = (0.0, 1.0, 2.0, 4.0, 8.0)
SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Cell:
    """One way of sampling.

    Attributes:
        group: what is compared within.
        noise_blind: the classifier is told step 0 at every step, as a classifier of clean pictures would be.
    """

    group: str
    params: Params
    seed: int = 0
    samples: int = SAMPLES
    noise_blind: bool = False

    @property
    def name(self) -> str:
        """Unique among the cells."""
        p = self.params
        kind = p.sampler if p.sampler == "ddim" else f"{p.sampler}-{p.variance}-{p.guidance_at}"
        blind = " noise-blind" if self.noise_blind else ""
        told = "unconditional" if p.unconditional else "conditional"
        return f"{self.group}: {told} {kind} {p.steps} steps, scale {p.guidance_scale:g}{blind}, seed {self.seed}"


@dataclass(frozen=True)
class Measured:
    """A cell and the quality of its samples."""

    cell: Cell
    quality: Quality

    def row(self) -> dict[str, float | int | str | None]:
        """A row of the table of cells."""
        cell, p = self.cell, self.cell.params
        chosen = p.model_dump(
            include={"unconditional", "sampler", "variance", "guidance_at", "steps", "guidance_scale"}
        )
        facts = {"noise_blind": cell.noise_blind, "seed": cell.seed, "samples": cell.samples}
        return {"group": cell.group, **chosen, **facts, **asdict(self.quality)}


def _cells() -> list[Cell]:
    found = [
        Cell("guidance", Params(guidance_scale=scale, unconditional=True), seed) for seed in SEEDS for scale in SCALES
    ]
    found += [Cell("conditional", Params(guidance_scale=scale), seed) for seed in SEEDS for scale in (0.0, 2.0)]
    found.append(Cell("noise-blind", Params(guidance_scale=2, unconditional=True), noise_blind=True))
    found += [Cell("steps", Params(guidance_scale=0, steps=steps)) for steps in (5, 10, 50)]
    found += [
        Cell("steps", Params(guidance_scale=0, steps=steps, sampler="ddpm", variance=variance))
        for steps in (10, 25)
        for variance in ("learned", "small", "large")
    ]
    found += [
        Cell("gradient at", Params(guidance_scale=2, unconditional=True, sampler="ddpm", guidance_at=where))
        for where in ("x", "mean")
    ]
    return found


CELLS = _cells()


def measure_cells(method: GuidedDiffusion, test: Dataset, cells: Sequence[Cell], run: Run) -> list[Measured]:
    """Draw and measure every cell; the run's resume point holds those that are done.

    Raises:
        Cancelled: the user asked for it.
    """
    state = run.load_state()
    done: dict[str, dict[str, Any]] = {} if state is None else dict(state[1]["cells"])
    total = sum(_work(cell) for cell in cells)
    real: dict[int, Judgement] = {}
    for position, cell in enumerate(cells):
        if cell.name in done:
            continue
        before, own = sum(_work(other) for other in cells[:position]), _work(cell)

        def report(share: float, before: float = before, own: float = own, name: str = cell.name) -> None:
            run.progress(0.92 * (before + share * own) / total, "draw", name)

        if cell.samples not in real:
            real[cell.samples] = _real(method, test, cell.samples)
        found = _measure(method, real[cell.samples], cell, report)
        run.log(f"{cell.name}: FID {found.fid:.2f}, consistency {found.consistency:.3f}")
        done[cell.name] = asdict(found)
        run.save_state({}, {"cells": done})
    return [Measured(cell, Quality(**done[cell.name])) for cell in cells]


def samples_of(method: GuidedDiffusion, cell: Cell, report: Callable[[float], None]) -> Tensor:
    """The samples of ``cell``, float32 ``(N, C, H, W)``."""
    draws = spread_draws(cell.samples, len(method.networks.class_names), 1_000_000 * cell.seed)
    sampled = _noise_blind(method) if cell.noise_blind else method
    return draw_pictures(sampled.samples, draws, cell.params, report)


def _real(method: GuidedDiffusion, test: Dataset, count: int) -> Judgement:
    """What the judge sees in ``count`` real pictures."""
    rows = np.random.default_rng(0).permutation(len(test))[:count]
    return judged(method.networks, test.select(rows).images(image_spec(method.networks)))


def _measure(method: GuidedDiffusion, real: Judgement, cell: Cell, report: Callable[[float], None]) -> Quality:
    networks = method.networks
    drawn = judged(networks, to_pictures(samples_of(method, cell, report)))
    return quality(real, drawn, np.arange(cell.samples) % len(networks.class_names))


def _noise_blind(method: GuidedDiffusion) -> GuidedDiffusion:
    classifier = method.networks.classifier
    assert classifier is not None
    return GuidedDiffusion(replace(method.networks, classifier=lambda x, t: classifier(x, torch.zeros_like(t))))


def _work(cell: Cell) -> float:
    """Relative cost: a guided step costs about twice an unguided one."""
    return cell.samples * cell.params.steps * (2 if cell.params.guidance_scale else 1)
