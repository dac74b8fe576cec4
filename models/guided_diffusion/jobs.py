"""The jobs: a sweep of guidance scales, the quality of a data set's pictures, and their likelihood."""

from __future__ import annotations

import csv
from dataclasses import asdict
from typing import Any

import numpy as np

from models.core.dataset import Dataset
from models.core.devices import pick_device
from models.core.inputs import Int64, UInt8
from models.core.jobs import JobContext
from models.core.method import MethodError
from models.guided_diffusion.fidelity import frechet_distance, inception_score, precision_recall
from models.guided_diffusion.judge import to_pictures
from models.guided_diffusion.measuring import (
    bits_per_dimension,
    draw_pictures,
    image_spec,
    judged,
    quality,
    spatial_distance,
    spread_draws,
)
from models.guided_diffusion.method import GuidedDiffusion
from models.guided_diffusion.pictures import draw_trade_off, sheet
from models.guided_diffusion.schema import EvaluateImages, GuidanceSweep, Likelihood, Params

SHEET = 80


def guidance_sweep(job: JobContext, parameters: GuidanceSweep) -> dict[str, Any]:
    """Quality of the version's pictures at each guidance scale, against as many of the data set.

    Artifacts: ``trade-off.png``, ``samples-SCALE.png`` for each scale.

    Raises:
        MethodError: fewer than 20 pictures in the data set.
        Cancelled: the user asked for it.
    """
    method = _method(job)
    pictures, _ = _chosen(job, job.dataset_id, method, parameters.samples, parameters.seed)
    real = judged(method.networks, pictures)
    draws = spread_draws(len(pictures), len(method.networks.class_names), parameters.seed)
    classes = np.array([draw.class_index for draw in draws])
    rows = []
    for position, scale in enumerate(parameters.scales):
        params = parameters.params.model_copy(update={"guidance_scale": scale})

        def report(share: float, position: int = position, scale: float = scale) -> None:
            job.progress((position + share) / len(parameters.scales), "draw", f"scale {scale:g}")

        drawn = to_pictures(draw_pictures(method.samples, draws, params, report))
        found = quality(real, judged(method.networks, drawn), classes)
        rows.append({"guidance_scale": scale, **asdict(found)})
        job.metric("fid", found.fid, position)
        job.metric("consistency", found.consistency, position)
        sheet(drawn[:SHEET], 10).save(job.artifact(f"samples-{scale:g}.png", "image/png"))
    draw_trade_off(rows, job.artifact("trade-off.png", "image/png"))
    return {"samples": len(pictures), "features": "judge, 64", "scales": rows}


def evaluate_images(job: JobContext, parameters: EvaluateImages) -> dict[str, Any]:
    """FID, sFID, inception score, precision and recall of a data set against another, or against drawn pictures.

    Raises:
        MethodError: fewer than 20 pictures on a side.
        KeyError: ``reference`` is no data set of the owner.
        Cancelled: the user asked for it.
    """
    method = _method(job)
    networks = method.networks
    pictures, labels = _chosen(job, job.dataset_id, method, parameters.samples, parameters.seed)
    if parameters.reference is not None:
        reference, _ = _chosen(job, parameters.reference, method, parameters.samples, parameters.seed)
        count = min(len(pictures), len(reference))
        pictures, reference = pictures[:count], reference[:count]
    else:
        scale = 0.0 if networks.classifier is None else Params().guidance_scale
        params = Params(guidance_scale=scale, steps=min(25, len(networks.schedule)))
        draws = spread_draws(len(pictures), len(networks.class_names), parameters.seed)
        drawn = draw_pictures(method.samples, draws, params, lambda share: job.progress(0.9 * share, "draw"))
        reference = to_pictures(drawn)
    job.progress(0.92, "measure", f"{len(pictures)} pictures a side")
    ours, theirs = judged(networks, pictures), judged(networks, reference)
    precision, recall = precision_recall(theirs.features, ours.features, parameters.neighbours)
    agreement = None
    if labels is not None and labels.max(initial=0) < len(networks.class_names):
        agreement = float(np.mean(ours.probabilities.argmax(axis=1) == labels[: len(pictures)]))
    half = len(reference) // 2
    return {
        "samples": len(pictures),
        "reference": parameters.reference or "drawn",
        "features": "judge, 64",
        "fid": frechet_distance(ours.features, theirs.features),
        "fid_between_halves_of_the_reference": frechet_distance(theirs.features[:half], theirs.features[half:]),
        "sfid": spatial_distance(networks.judge, pictures, reference),
        "inception_score": inception_score(ours.probabilities),
        "precision": precision,
        "recall": recall,
        "judge_agrees_with_labels": agreement,
    }


def likelihood(job: JobContext, parameters: Likelihood) -> dict[str, Any]:
    """The variational bound of pictures, bits a dimension; artifact ``likelihood.csv`` has each one's.

    Raises:
        MethodError: more steps than the version's process has.
        Cancelled: the user asked for it.
    """
    method = _method(job)
    networks = method.networks
    if parameters.steps > len(networks.schedule):
        raise MethodError(f"steps: this version's process has {len(networks.schedule)}")
    dataset = job.dataset(job.dataset_id or "")
    rows = np.random.default_rng(parameters.seed).permutation(len(dataset))[: parameters.samples]
    pictures = dataset.select(rows).images(image_spec(networks))
    bounds = bits_per_dimension(
        networks, pictures, None, parameters.steps, parameters.seed, lambda share: job.progress(share, "bound")
    )
    bits = next(iter(bounds.values())).numpy()
    with job.artifact("likelihood.csv", "text/csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["index", "bits_per_dimension"])
        writer.writerows((int(index), f"{value:.5f}") for index, value in zip(rows, bits, strict=True))
    return {
        "samples": len(bits),
        "steps": parameters.steps,
        "bits_per_dimension": float(bits.mean()),
        "standard_error": float(bits.std(ddof=1) / len(bits) ** 0.5) if len(bits) > 1 else None,
        "lowest": [int(index) for index in rows[np.argsort(bits)[:10]]],
        "highest": [int(index) for index in rows[np.argsort(-bits)[:10]]],
    }


def _method(job: JobContext) -> GuidedDiffusion:
    checkpoint = job.checkpoint(job.model or "guided-diffusion")
    return GuidedDiffusion.load(checkpoint, pick_device(job.device))


def _chosen(
    job: JobContext, dataset_id: str | None, method: GuidedDiffusion, samples: int, seed: int
) -> tuple[UInt8, Int64 | None]:
    """Pictures uint8 ``(N, H, W, C)`` of a data set, a random choice, and their labels."""
    dataset: Dataset = job.dataset(dataset_id or "")
    dataset.require_kind("images")
    if len(dataset) < 20:
        raise MethodError(f"dataset: {len(dataset)} pictures are fewer than 20")
    rows = np.random.default_rng(seed).permutation(len(dataset))[:samples]
    chosen = dataset.select(rows)
    return chosen.images(image_spec(method.networks)), chosen.labels
