"""How much the proof measures: a plan for a processor core's quarter of an hour, and one for an accelerator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from models.core.devices import Precision
from models.guided_diffusion.schema import Params, Variance

Guide = Literal["noisy", "blind", "clean"]
"""The version's own classifier; the same one, told step 0 at every step; one trained on clean pictures only."""

VARIANCES: tuple[Variance, ...] = ("learned", "small", "large")
LONG = 100  # steps from which on one sampling seed has to do
SCALED = ("guidance", "conditional")  # the groups that are about the guidance scale


@dataclass(frozen=True)
class Plan:
    """Sizes of the proof.

    Attributes:
        name: in :data:`PLANS`.
        samples: pictures a cell; at most as many as there are to compare with.
        seeds: of the samples; each cell about the guidance scale is drawn once a seed.
        other_seeds: of all other cells, some of ``seeds``.
        scales: of guidance, the denoiser told no class.
        told_scales: the same, told the class.
        guide_scales: at which other guides are compared with the version's own; ``guides`` are those others.
        steps: of the samplers compared without guidance.
        bound_pictures, bound_steps: of the likelihood bound.
        twin: train a denoiser with the mean error alone, otherwise as the version was, and compare their bounds.
        batch: pictures drawn at once.
        precision: of the samples' networks; other than float32 they are compiled too.
    """

    name: str
    samples: int
    seeds: Sequence[int]
    other_seeds: Sequence[int]
    scales: Sequence[float]
    told_scales: Sequence[float]
    guide_scales: Sequence[float]
    guides: Sequence[Guide]
    ddim_steps: Sequence[int]
    ddpm_steps: Sequence[int]
    bound_pictures: int
    bound_steps: int
    twin: bool
    batch: int
    precision: Precision


_SCALES = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)
_STEPS = (5, 10, 25, 50, 250)
PLANS = {
    "small": Plan(
        name="small",
        samples=200,
        seeds=(0, 1, 2),
        other_seeds=(0,),
        scales=(0.0, 1.0, 2.0, 4.0, 8.0),
        told_scales=(0.0, 2.0),
        guide_scales=(2.0,),
        guides=("blind",),
        ddim_steps=(5, 10, 25, 50),
        ddpm_steps=(10, 25),
        bound_pictures=50,
        bound_steps=50,
        twin=False,
        batch=50,
        precision="float32",
    ),
    "full": Plan(
        name="full",
        samples=5000,
        seeds=(0, 1, 2),
        other_seeds=(0, 1, 2),
        scales=_SCALES,
        told_scales=_SCALES,
        guide_scales=(1.0, 2.0, 4.0, 8.0),
        guides=("blind", "clean"),
        ddim_steps=_STEPS,
        ddpm_steps=_STEPS,
        bound_pictures=500,
        bound_steps=1000,
        twin=True,
        batch=1250,
        precision="bfloat16",
    ),
}


@dataclass(frozen=True)
class Cell:
    """One way of sampling.

    Attributes:
        group: what is compared within.
    """

    group: str
    params: Params = field(default_factory=Params)
    seed: int = 0
    samples: int = 200
    guide: Guide = "noisy"

    @property
    def name(self) -> str:
        """Unique among the cells."""
        p = self.params
        kind = p.sampler if p.sampler == "ddim" else f"{p.sampler}-{p.variance}-{p.guidance_at}"
        guide = "" if self.guide == "noisy" else f" {self.guide} guide"
        told = "unconditional" if p.unconditional else "conditional"
        return f"{self.group}: {told} {kind} {p.steps} steps, scale {p.guidance_scale:g}{guide}, seed {self.seed}"

    @property
    def work(self) -> float:
        """Relative cost: a guided step costs about twice an unguided one."""
        return self.samples * self.params.steps * (2 if self.params.guidance_scale else 1)


def cells_of(plan: Plan, real: int) -> list[Cell]:
    """The cells of ``plan``, all of the first seed first.

    Args:
        real: pictures that there are to compare with.
    """
    samples = min(plan.samples, real)
    cells = _cells(plan)
    return [
        replace(cell, seed=seed, samples=samples) for seed in plan.seeds for cell in cells if _drawn(cell, plan, seed)
    ]


def _drawn(cell: Cell, plan: Plan, seed: int) -> bool:
    if cell.params.steps >= LONG:
        return seed == plan.seeds[0]
    return cell.group in SCALED or seed in plan.other_seeds


def _cells(plan: Plan) -> list[Cell]:
    found = [Cell("guidance", Params(guidance_scale=scale, unconditional=True)) for scale in plan.scales]
    found += [Cell("conditional", Params(guidance_scale=scale)) for scale in plan.told_scales]
    found += [
        Cell(f"{guide} guide", Params(guidance_scale=scale, unconditional=True), guide=guide)
        for guide in plan.guides
        for scale in plan.guide_scales
    ]
    found += [
        Cell("gradient at", Params(guidance_scale=2, unconditional=True, sampler="ddpm", guidance_at=where))
        for where in ("x", "mean")
    ]
    found += [Cell("steps", Params(guidance_scale=0, steps=steps, eta=0)) for steps in plan.ddim_steps]
    found += [
        Cell("steps", Params(guidance_scale=0, steps=steps, sampler="ddpm", variance=variance))
        for steps in plan.ddpm_steps
        for variance in VARIANCES
    ]
    return found
