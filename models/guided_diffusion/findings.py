"""What the measured cells say: figures by subject, the trade-off, and sentences on what held."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from models.core.figures import Figure
from models.guided_diffusion.cells import Measured

MEASURES = ("fid", "precision", "recall", "consistency")


def trade_off(measured: Sequence[Measured]) -> list[dict[str, float]]:
    """Means over seeds by guidance scale, the denoiser told no class."""
    scales = sorted({m.cell.params.guidance_scale for m in measured if m.cell.group == "guidance"})
    return [
        {"guidance_scale": scale, **{name: _mean(_guided(measured, scale), name) for name in MEASURES}}
        for scale in scales
    ]


def by_subject(measured: Sequence[Measured], fid: str, setting: str) -> list[Figure]:
    """Figures of the method at its default scale, conditional and guided, and of its baselines."""
    subjects = {
        "method": _conditional(measured, guided=True),
        "without guidance": _conditional(measured, guided=False),
        "unconditional, guided": _guided(measured, 2.0),
        "unconditional, no guidance": _guided(measured, 0.0),
        "guidance blind to the noise": _blind(measured),
    }
    return [
        Figure.over_seeds(
            fid if name == "fid" else name,
            [getattr(m.quality, name) for m in found],
            subject=subject,
            setting=setting,
            headline=subject == "method" and name in ("fid", "consistency"),
        )
        for name in MEASURES
        for subject, found in subjects.items()
    ]


def claims(measured: Sequence[Measured], floor: float) -> list[str]:
    """Plain sentences."""
    rows = trade_off(measured)
    first, last = rows[0], rows[-1]
    best = min(rows, key=lambda row: row["fid"])
    inner = best not in (first, last)
    plain, guided = (_conditional(measured, guided=wanted) for wanted in (False, True))
    at_x, at_mean = (
        next(m for m in measured if m.cell.group == "gradient at" and m.cell.params.guidance_at == where)
        for where in ("x", "mean")
    )
    return [
        f"From guidance scale 0 to {last['guidance_scale']:g} of an unconditional denoiser, consistency goes from "
        f"{first['consistency']:.2f} to {last['consistency']:.2f}, precision from {first['precision']:.2f} to "
        f"{last['precision']:.2f}, recall from {first['recall']:.2f} to {last['recall']:.2f}.",
        f"Its FID is least at scale {best['guidance_scale']:g} ({best['fid']:.2f}; real against real {floor:.2f}), "
        f"{'an inner scale, as the paper says' if inner else 'an end of the range, unlike the paper'}.",
        f"Guiding the class-conditional denoiser (scale 2) changes FID from {_mean(plain, 'fid'):.2f} to "
        f"{_mean(guided, 'fid'):.2f} and consistency from {_mean(plain, 'consistency'):.2f} to "
        f"{_mean(guided, 'consistency'):.2f}.",
        f"A guide blind to the noise reaches consistency {_mean(_blind(measured), 'consistency'):.2f} at scale 2, the "
        f"noise-aware one {_mean(_guided(measured, 2.0), 'consistency'):.2f}.",
        "With ancestral sampling in 25 steps the gradient at the mean gives consistency "
        f"{at_mean.quality.consistency:.2f}, at the noisy picture {at_x.quality.consistency:.2f}.",
        _by_steps(measured, plain),
    ]


def _by_steps(measured: Sequence[Measured], plain: Sequence[Measured]) -> str:
    """FID of unguided sampling by steps and sampler, on one seed; DDIM's 25 steps are those of ``plain``."""
    found: dict[str, dict[int, float]] = {}
    for m in (*plain, *(m for m in measured if m.cell.group == "steps")):
        if m.cell.seed == 0:
            p = m.cell.params
            found.setdefault("DDIM" if p.sampler == "ddim" else p.variance, {})[p.steps] = m.quality.fid
    parts = (
        f"{name} " + ", ".join(f"{fid:.2f} in {steps}" for steps, fid in sorted(values.items()))
        for name, values in found.items()
    )
    return "FID without guidance by steps: " + "; ".join(parts) + " (learned, small, large: ancestral variances)."


def _conditional(measured: Sequence[Measured], *, guided: bool) -> list[Measured]:
    return [m for m in measured if m.cell.group == "conditional" and (m.cell.params.guidance_scale > 0) is guided]


def _guided(measured: Sequence[Measured], scale: float) -> list[Measured]:
    return [m for m in measured if m.cell.group == "guidance" and m.cell.params.guidance_scale == scale]


def _blind(measured: Sequence[Measured]) -> list[Measured]:
    return [m for m in measured if m.cell.noise_blind]


def _mean(measured: Sequence[Measured], name: str) -> float:
    return float(np.mean([getattr(m.quality, name) for m in measured]))
