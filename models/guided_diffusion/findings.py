"""What the measured cells say: figures by subject, the trade-off, and sentences on what held."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from models.core.figures import Figure
from models.guided_diffusion.cells import Measured

MEASURES = ("fid", "precision", "recall", "consistency")


def trade_off(measured: Sequence[Measured]) -> list[dict[str, float]]:
    """Means over seeds by guidance scale, the denoiser told no class."""
    scales = sorted({cell.guidance_scale for cell in measured if cell.group == "guidance"})
    return [
        {"guidance_scale": scale, **{name: _mean(_guided(measured, scale), name) for name in MEASURES}}
        for scale in scales
    ]


def by_subject(measured: Sequence[Measured], fid: str, setting: str) -> list[Figure]:
    """Figures of the method at its default scale, conditional and guided, and of its baselines."""
    subjects = {
        "method": [c for c in measured if c.group == "conditional" and c.guidance_scale],
        "without guidance": [c for c in measured if c.group == "conditional" and not c.guidance_scale],
        "unconditional, guided": _guided(measured, 2.0),
        "unconditional, no guidance": _guided(measured, 0.0),
        "guidance blind to the noise": [c for c in measured if c.noise_blind],
    }
    return [
        Figure.over_seeds(
            fid if name == "fid" else name,
            [getattr(cell, name) for cell in cells],
            subject=subject,
            setting=setting,
            headline=subject == "method" and name in ("fid", "consistency"),
        )
        for name in MEASURES
        for subject, cells in subjects.items()
    ]


def claims(measured: Sequence[Measured], floor: float) -> list[str]:
    """Plain sentences."""
    rows = trade_off(measured)
    first, last = rows[0], rows[-1]
    best = min(rows, key=lambda row: row["fid"])
    inner = best not in (first, last)
    at_x, at_mean = (
        next(c for c in measured if c.group == "gradient at" and c.guidance_at == where) for where in ("x", "mean")
    )
    blind = next(c for c in measured if c.noise_blind)
    plain, guided = (
        [c for c in measured if c.group == "conditional" and bool(c.guidance_scale) is wanted]
        for wanted in (False, True)
    )
    ten = {
        c.variance if c.sampler == "ddpm" else "DDIM": c.fid for c in measured if c.group == "steps" and c.steps == 10
    }
    return [
        f"From guidance scale 0 to {last['guidance_scale']:g} of an unconditional denoiser, consistency goes from "
        f"{first['consistency']:.2f} to {last['consistency']:.2f}, precision from {first['precision']:.2f} to "
        f"{last['precision']:.2f}, recall from {first['recall']:.2f} to {last['recall']:.2f}.",
        f"Its FID is least at scale {best['guidance_scale']:g} ({best['fid']:.2f}; real against real {floor:.2f}), "
        f"{'an inner scale, as the paper says' if inner else 'an end of the range, unlike the paper'}.",
        f"Guiding the class-conditional denoiser (scale 2) changes FID from {_mean(plain, 'fid'):.2f} to "
        f"{_mean(guided, 'fid'):.2f} and consistency from {_mean(plain, 'consistency'):.2f} to "
        f"{_mean(guided, 'consistency'):.2f}.",
        f"A guide blind to the noise reaches consistency {blind.consistency:.2f} at scale 2, the noise-aware one "
        f"{_mean(_guided(measured, 2.0), 'consistency'):.2f}.",
        f"With ancestral sampling in 25 steps the gradient at the mean gives consistency {at_mean.consistency:.2f}, at "
        f"the noisy picture {at_x.consistency:.2f}.",
        "FID in ten steps: " + ", ".join(f"{name} {value:.2f}" for name, value in ten.items()) + ".",
    ]


def _guided(measured: Sequence[Measured], scale: float) -> list[Measured]:
    return [cell for cell in measured if cell.group == "guidance" and cell.guidance_scale == scale]


def _mean(cells: Sequence[Measured], name: str) -> float:
    return float(np.mean([getattr(cell, name) for cell in cells]))
