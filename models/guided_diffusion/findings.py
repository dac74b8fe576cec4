"""What the measured cells say: figures by subject, the trade-off, and sentences on what held."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np
from torch import Tensor

from models.core.figures import Figure
from models.guided_diffusion.cells import Measured
from models.guided_diffusion.measuring import Quality
from models.guided_diffusion.plan import SCALED, Guide
from models.guided_diffusion.schema import Params

MEASURES = ("fid", "precision", "recall", "consistency")
Row = dict[str, float | int | str | None]
DEFAULT = Params()
K = TypeVar("K")


def trade_off(measured: Sequence[Measured], *, told: bool = False) -> list[dict[str, float]]:
    """Means over seeds by guidance scale, the denoiser told no class or the class."""
    chosen = [m for m in measured if m.cell.group == ("conditional" if told else "guidance")]
    return [
        {"guidance_scale": scale, **{name: _mean(found, name) for name in MEASURES}}
        for scale, found in _grouped(chosen, lambda m: m.cell.params.guidance_scale).items()
    ]


def summary(measured: Sequence[Measured]) -> dict[str, list[Row]]:
    """Tables of means and deviations over seeds: by guidance scale and guide, and by sampler and steps."""

    def by_scale(m: Measured) -> tuple[str, str, float]:
        p = m.cell.params
        return "nothing" if p.unconditional else "class", m.cell.guide, p.guidance_scale

    scaled = [m for m in measured if m.cell.group in SCALED or m.cell.guide != "noisy"]
    plain = _of_group(measured, "steps")
    return {
        "by scale": [
            {"told": told, "guide": guide, "guidance scale": scale, **_spread(found)}
            for (told, guide, scale), found in _grouped(scaled, by_scale).items()
        ],
        "without guidance by steps": [
            {"sampler": kind, "steps": steps, **_spread(found)}
            for (kind, steps), found in sorted(_grouped(plain, lambda m: (_sampler(m), m.cell.params.steps)).items())
        ],
    }


def by_subject(measured: Sequence[Measured], fid: str, setting: str) -> list[Figure]:
    """Figures of the method at its default scale, conditional and guided, and of its baselines."""
    scale = DEFAULT.guidance_scale
    subjects = {
        "method": _at(measured, "conditional", scale),
        "without guidance": _at(measured, "conditional", 0.0),
        "unconditional, guided": _at(measured, "guidance", scale),
        "unconditional, no guidance": _at(measured, "guidance", 0.0),
        "unconditional, guide blind to the noise": _at(measured, "blind guide", scale),
        "unconditional, guide of clean pictures": _at(measured, "clean guide", scale),
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
        if found
    ]


def floor_figures(floor: Quality, fid: str, setting: str) -> list[Figure]:
    """Real pictures beside as many other real ones."""
    return [
        Figure(
            name=fid if name == "fid" else name,
            value=getattr(floor, name),
            subject="real against real",
            setting=setting,
        )
        for name in MEASURES
    ]


def claims(measured: Sequence[Measured], floor: Quality) -> list[str]:
    """Plain sentences."""
    found = [
        f"Real pictures beside as many others: FID {floor.fid:.2f}, precision {floor.precision:.3f}, recall "
        f"{floor.recall:.3f}; the judge agrees with {floor.consistency:.3f} of their labels."
    ]
    for told, subject in ((False, "an unconditional denoiser"), (True, "the class-conditional denoiser")):
        rows = trade_off(measured, told=told)
        if len(rows) > 1:
            found += _of_scales(rows, subject)
    found += [_of_guide(measured, guide) for guide in ("blind", "clean") if _of_group(measured, f"{guide} guide")]
    if at_mean := _gradient_at(measured, "mean"):
        found.append(
            "With ancestral sampling in 25 steps the gradient at the mean gives consistency "
            f"{_mean(at_mean, 'consistency'):.3f}, at the noisy picture "
            f"{_mean(_gradient_at(measured, 'x'), 'consistency'):.3f}."
        )
    parts: dict[str, list[str]] = {}
    for row in summary(measured)["without guidance by steps"]:
        parts.setdefault(str(row["sampler"]), []).append(f"{row['fid']:.2f} in {row['steps']}")
    if parts:
        said = "; ".join(f"{name} {', '.join(values)}" for name, values in parts.items())
        found.append(f"FID without guidance by steps: {said} (learned, small, large: variances of ancestral sampling).")
    return found


def bound_claims(bounds: Mapping[str, Tensor]) -> list[str]:
    """Whether the hybrid loss explains the pictures better than the mean error; ``bounds`` by network and variance."""
    simple = {name: bits for name, bits in bounds.items() if name.startswith("L_simple")}
    if not simple:
        return []
    best = min(simple, key=lambda name: float(simple[name].mean()))
    gain = (simple[best] - bounds["method"]).numpy()
    return [
        f"Bits a dimension of the same {len(gain)} pictures: {float(bounds['method'].mean()):.3f} by L_hybrid with its "
        f"learned variance, {float(simple[best].mean()):.3f} by {best}, as many updates; the difference is "
        f"{gain.mean():.3f} ± {gain.std(ddof=1) / len(gain) ** 0.5:.3f} (standard error)."
    ]


def _of_scales(rows: Sequence[Mapping[str, float]], subject: str) -> list[str]:
    first, last = rows[0], rows[-1]
    best = min(rows, key=lambda row: row["fid"])
    inner = best not in (first, last)
    changes = ", ".join(f"{name} from {first[name]:.3f} to {last[name]:.3f}" for name in MEASURES[1:])
    return [
        f"From guidance scale 0 to {last['guidance_scale']:g} of {subject}: {changes}.",
        f"FID of {subject} is {first['fid']:.2f} at scale 0 and least, {best['fid']:.2f}, at scale "
        f"{best['guidance_scale']:g}, {'an inner scale, as the paper says' if inner else 'an end of the range'}.",
    ]


def _of_guide(measured: Sequence[Measured], guide: Guide) -> str:
    told = {"blind": "the same classifier, blind to the noise", "clean": "a classifier of clean pictures"}[guide]
    parts = []
    for scale, other in _grouped(_of_group(measured, f"{guide} guide"), lambda m: m.cell.params.guidance_scale).items():
        own = _at(measured, "guidance", scale)
        if own:
            parts.append(
                f"at scale {scale:g} FID {_mean(other, 'fid'):.2f} against {_mean(own, 'fid'):.2f} and consistency "
                f"{_mean(other, 'consistency'):.3f} against {_mean(own, 'consistency'):.3f}"
            )
    return f"Guided by {told}, against the noise-aware one, the denoiser told no class: {'; '.join(parts)}."


def _grouped(measured: Sequence[Measured], key: Callable[[Measured], K]) -> dict[K, list[Measured]]:
    found: dict[K, list[Measured]] = {}
    for m in measured:
        found.setdefault(key(m), []).append(m)
    return found


def _of_group(measured: Sequence[Measured], group: str) -> list[Measured]:
    return [m for m in measured if m.cell.group == group]


def _at(measured: Sequence[Measured], group: str, scale: float) -> list[Measured]:
    return [m for m in _of_group(measured, group) if m.cell.params.guidance_scale == scale]


def _gradient_at(measured: Sequence[Measured], where: str) -> list[Measured]:
    return [m for m in _of_group(measured, "gradient at") if m.cell.params.guidance_at == where]


def _sampler(m: Measured) -> str:
    p = m.cell.params
    return "DDIM" if p.sampler == "ddim" else p.variance


def _spread(measured: Sequence[Measured]) -> Row:
    row: Row = {"seeds": len(measured)}
    for name in MEASURES:
        values = [getattr(m.quality, name) for m in measured]
        row[name] = float(np.mean(values))
        row[f"{name}, deviation"] = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return row


def _mean(measured: Sequence[Measured], name: str) -> float:
    return float(np.mean([getattr(m.quality, name) for m in measured]))
