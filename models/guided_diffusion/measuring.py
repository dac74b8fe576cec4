"""What a set of generated pictures is worth beside real ones, by the judge; and how a version explains real ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.core.inputs import ImageSpec, Int64, UInt8
from models.core.outputs import Draw
from models.guided_diffusion.fidelity import frechet_distance, inception_score, precision_recall
from models.guided_diffusion.judge import Judge, Judgement, judge_pictures, spatial_features, to_network
from models.guided_diffusion.process import Process, prior_bits
from models.guided_diffusion.sampler import Denoise
from models.guided_diffusion.schedule import spaced
from models.guided_diffusion.schema import Params, Variance
from models.guided_diffusion.versions import Networks

BATCH = 50


@dataclass(frozen=True)
class Quality:
    """Generated against real pictures, as many of each.

    Attributes:
        fid: Frechet distance of the judge's 64 features.
        precision, recall: by balls to the third neighbour.
        consistency: share that the judge gives the class that was asked for.
    """

    fid: float
    precision: float
    recall: float
    consistency: float
    inception_score: float


def image_spec(networks: Networks) -> ImageSpec:
    """The pictures of a version."""
    channels, height, width = networks.shape
    return ImageSpec(height=height, width=width, channels=3 if channels == 3 else 1)


def spread_draws(count: int, classes: int, seed: int) -> list[Draw]:
    """``count`` draws with consecutive seeds and classes in turn."""
    return [Draw(position % classes, seed + position) for position in range(count)]


def draw_pictures(
    predict: Callable[[Sequence[Draw], Params], Tensor],
    draws: Sequence[Draw],
    params: Params,
    report: Callable[[float], None] = lambda share: None,
    batch: int = BATCH,
) -> Tensor:
    """Samples float32 ``(N, C, H, W)``, drawn ``batch`` at once; ``report`` is told the share done."""
    parts = []
    for start in range(0, len(draws), batch):
        report(start / len(draws))
        parts.append(predict(draws[start : start + batch], params))
    return torch.cat(parts)


def quality(
    real: Judgement, generated: Judgement, classes: Int64, device: torch.device | str = "cpu", neighbours: int = 3
) -> Quality:
    """Compare; ``classes`` int64 ``(N,)`` are those asked for."""
    precision, recall = precision_recall(real.features, generated.features, neighbours, device)
    return Quality(
        fid=frechet_distance(real.features, generated.features),
        precision=precision,
        recall=recall,
        consistency=float(np.mean(generated.probabilities.argmax(axis=1) == classes)),
        inception_score=inception_score(generated.probabilities),
    )


def spatial_distance(judge: Judge, a: UInt8, b: UInt8) -> float:
    """Frechet distance of the judge's last maps, position by position (sFID)."""
    return frechet_distance(spatial_features(judge, a), spatial_features(judge, b))


def judged(networks: Networks, pictures: UInt8) -> Judgement:
    """Features and probabilities of uint8 ``(N, H, W, C)``."""
    return judge_pictures(networks.judge, pictures)


def noisy_accuracy(networks: Networks, pictures: UInt8, labels: Int64, levels: Sequence[int]) -> dict[int, float]:
    """Accuracy of the guiding classifier on noisy ``pictures``, by step of the process.

    Raises:
        ValueError: the version has no classifier.
    """
    if networks.classifier is None:
        raise ValueError("the version has no classifier")
    process = Process(networks.schedule, networks.device)
    start, wanted = to_network(pictures).to(networks.device), torch.from_numpy(labels).to(networks.device)
    noise = torch.randn(start.shape, generator=torch.Generator().manual_seed(0)).to(networks.device)
    found = {}
    with torch.inference_mode():
        for level in levels:
            t = torch.full((len(start),), level, device=networks.device)
            logits = networks.classifier(process.noised(start, t, noise), t)
            found[level] = (logits.argmax(dim=1) == wanted).float().mean().item()
    return found


def bits_per_dimension(
    networks: Networks,
    pictures: UInt8,
    labels: Int64 | None,
    steps: int,
    seed: int,
    report: Callable[[float], None],
    *,
    batch: int = BATCH,
) -> dict[Variance, Tensor]:
    """The variational bound on each picture's negative log-likelihood, bits a value.

    Args:
        labels: int64 ``(N,)`` classes that the denoiser is told; None: the null label.
        steps: of the bound; fewer are looser.
        batch: pictures at once.

    Returns:
        Float64 ``(N,)`` for each variance of a step down that the version can take, its learned one first.
    """
    process = Process(networks.schedule.respace(spaced(len(networks.schedule), steps)), networks.device)
    null = networks.denoiser.conditioning.labels - 1
    told = np.full(len(pictures), null) if labels is None or not networks.conditional else labels
    random = torch.Generator(networks.device).manual_seed(seed)
    variances: list[Variance] = ["learned", "large", "small"] if networks.learned_variance else ["large", "small"]
    totals: dict[Variance, list[Tensor]] = {kind: [] for kind in variances}
    with torch.inference_mode():
        for first in range(0, len(pictures), batch):
            start = to_network(pictures[first : first + batch]).to(networks.device)
            predict = Denoise(networks.denoiser, torch.from_numpy(told[first : first + batch]).to(networks.device))
            sums = {kind: prior_bits(process, start).double() for kind in variances}
            for index in range(len(process)):
                report((first + len(start) * index / len(process)) / len(pictures))
                t = torch.full((len(start),), index, device=networks.device)
                x = process.noised(start, t, torch.randn(start.shape, generator=random, device=networks.device))
                output = predict(x, process.timesteps[t])
                for kind in variances:
                    sums[kind] += _term(process, output, start, x, t, kind).double()
            for kind in variances:
                totals[kind].append(sums[kind].cpu())
    return {kind: torch.cat(parts) for kind, parts in totals.items()}


def _term(process: Process, output: Tensor, start: Tensor, x: Tensor, t: Tensor, kind: Variance) -> Tensor:
    channels = start.shape[1]
    guess = process.start_from_noise(x, t, output[:, :channels]).clamp(-1, 1)
    log_variance = process.log_variance(kind, t, output[:, channels:])
    mean = process.posterior_mean(guess, x, t)
    return process.variational_bound(start, x, t, mean, log_variance.expand_as(mean))
