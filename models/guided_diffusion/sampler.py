"""Sampling: DDPM's and DDIM's steps, with and without a classifier that steers (Dhariwal & Nichol 2021, section 4).

Every picture has a random generator of its own, seeded by its own seed, and nothing in the networks mixes the pictures
of a batch: a picture does not depend on its neighbours.

An estimate of the clean picture multiplies the network's error by ``sqrt((1 - A_t) / A_t)``: 20,000 at the last of a
thousand cosine steps, so that clipping leaves black and white pixels at random, and the few large steps of DDIM keep
them. Steps with less signal than ``LEAST_SIGNAL`` therefore take the estimate of the noisiest step that has it. FID of
25 steps (150 pictures a side) fell by that from 11.5 to 7.7 in the middle of a training, and from 4.7 to 4.6 after it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from models.guided_diffusion.batches import filled
from models.guided_diffusion.blocks import Conditioning
from models.guided_diffusion.process import Process, at
from models.guided_diffusion.schedule import Schedule, spaced
from models.guided_diffusion.schema import Params

LEAST_SIGNAL = 0.01  # A_t; a thousand cosine steps have more up to step 935

Gradient = Callable[[Tensor, Tensor], Tensor]
"""From pictures ``(B, C, H, W)`` and steps of the full process ``(B,)`` to the gradient of log p(y | x, t) in x."""
Predict = Callable[[Tensor, Tensor], Tensor]
"""From pictures and steps of the full process to the denoiser's output, variance channels included."""


def gradient_of(classifier: Callable[[Tensor, Tensor], Tensor], classes: Tensor, least: int = 1) -> Gradient:
    """The gradient of each picture's log-probability of its class; one backward pass of the sum gives all.

    Args:
        classifier: from pictures and steps to logits.
        classes: int64 ``(B,)``; -1 for a picture that no class steers, whose gradient is zero.
        least: batch that the classifier is given at least.
    """
    steered = classes >= 0
    rows = slice(None) if bool(steered.all()) else steered  # picking rows by a mask makes the host wait for the device

    def gradient(x: Tensor, t: Tensor) -> Tensor:
        with torch.inference_mode(mode=False), torch.enable_grad():
            leaf = filled(x[rows], least).clone().requires_grad_()
            logits = classifier(leaf, filled(t[rows], least).clone())
            chosen = filled(classes[rows], least).clone()
            picked = logits.log_softmax(dim=1).gather(1, chosen[:, None]).sum()
            (found,) = torch.autograd.grad(picked, leaf)
        result = torch.zeros_like(x)
        result[rows] = found[: len(x[rows])]
        return result

    return gradient


class Modulated(Protocol):
    """A U-Net whose blocks' scales and shifts are made apart from its pass (:class:`~.network.UNet`, or a faster one).

    :meth:`modulated` takes pictures ``(B, C, H, W)`` and the rows ``(B, M)`` of ``conditioning``.
    """

    conditioning: Conditioning

    def modulated(self, x: Tensor, rows: Tensor) -> Tensor: ...  # noqa: D102


class Denoise:
    """The U-Net at labels ``(B,)``; scales and shifts of its blocks are computed once a step and label, then gathered.

    All labels of the table are computed whatever the batch asks for, so that rounding does not depend on the batch.

    Args:
        least: batch that the network is given at least.
    """

    def __init__(self, network: Modulated, labels: Tensor, least: int = 1) -> None:
        self.network, self.labels, self.least = network, labels, least
        self.all_labels = torch.arange(network.conditioning.labels, device=labels.device)

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        """``t`` is the same for the whole batch."""
        rows = self.network.conditioning(t[:1].expand(len(self.all_labels)), self.all_labels)
        output = self.network.modulated(filled(x, self.least), rows[filled(self.labels, self.least)])
        return output[: len(x)]


def sample(
    predict: Predict,
    gradient: Gradient | None,
    schedule: Schedule,
    shape: tuple[int, int, int],
    seeds: Sequence[int],
    params: Params,
    device: torch.device | str = "cpu",
) -> Iterator[tuple[float, Tensor]]:
    """Draw pictures, step by step.

    Args:
        gradient: what steers; None leaves guidance out.
        schedule: the full process.
        shape: ``(C, H, W)``.
        seeds: one a picture.

    Yields:
        After each step the share of the steps done and the estimate of the clean pictures, float32 ``(B, C, H, W)``;
        the last one are the samples.

    Raises:
        ValueError: more steps than the process has.
    """
    steps = schedule.respace(spaced(len(schedule), params.steps))
    process = Process(steps, device, schedule.last_above(LEAST_SIGNAL))
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def noise() -> Tensor:
        drawn = torch.stack([torch.randn(shape, generator=generator) for generator in generators])
        return drawn.to(device, memory_format=torch.channels_last)

    x = noise()
    low, high = (share * (len(schedule) - 1) for share in params.guidance_interval)
    advance = ddim_step if params.sampler == "ddim" else ddpm_step
    for index in reversed(range(len(process))):
        acts = params.guidance_scale > 0 and low <= int(steps.timesteps[index]) <= high
        output = predict(x, process.timesteps[_steps(x, index)])
        x, start = advance(process, output, x, index, gradient if acts else None, noise, params)
        yield 1 - index / len(process), start if index else x


def ddim_step(
    process: Process,
    output: Tensor,
    x: Tensor,
    index: int,
    gradient: Gradient | None,
    noise: Callable[[], Tensor],
    params: Params,
) -> tuple[Tensor, Tensor]:
    """Sampler 2: the noise is shifted against the gradient, then DDIM's step (Song et al. 2021, eq. 12).

    Where clipping is on, the picture that the shifted noise implies is clipped: at large scales the samples would leave
    the range otherwise. The noise is what the picture leaves.

    Args:
        index: of the step in ``process``, the same for all pictures.

    Returns:
        The pictures one step down and the estimate of the clean ones.
    """
    t, e = _steps(x, index), output[:, : x.shape[1]]
    if gradient is not None:
        e = e - at(process.read_noise, t) * params.guidance_scale * gradient(x, process.timesteps[t])
    start = process.start_from_noise(x, t, e)
    if params.clip_denoised:
        start = start.clamp(-1, 1)
    e = process.noise_from_start(x, t, start)
    kept, previous = (
        float(table[index]) for table in (process.schedule.alphas_bar, process.schedule.alphas_bar_previous)
    )
    deviation = (params.eta or 0.0) * ((1 - previous) / (1 - kept)) ** 0.5 * (1 - kept / previous) ** 0.5
    x = previous**0.5 * start + max(0.0, 1 - previous - deviation**2) ** 0.5 * e
    if deviation and index:
        x = x + deviation * noise()
    return x, start


def ddpm_step(
    process: Process,
    output: Tensor,
    x: Tensor,
    index: int,
    gradient: Gradient | None,
    noise: Callable[[], Tensor],
    params: Params,
) -> tuple[Tensor, Tensor]:
    """Sampler 1: the mean is moved by scale * variance * gradient, taken at the mean (paper) or at x (official code).

    Returns:
        The pictures one step down and the estimate of the clean ones.
    """
    t, channels = _steps(x, index), x.shape[1]
    start = process.start_from_noise(x, t, output[:, :channels])
    if params.clip_denoised:
        start = start.clamp(-1, 1)
    mean = process.posterior_mean(start, x, t)
    v = output[:, channels:] if output.shape[1] > channels else None
    log_variance = process.log_variance(params.variance, t, v)
    if gradient is not None:
        where = (x, t) if params.guidance_at == "x" else (mean, (t - 1).clamp_min(0))
        shift = gradient(where[0], process.timesteps[where[1]])
        mean = mean + params.guidance_scale * torch.exp(log_variance) * shift
    if not index:
        return mean, start
    return mean + torch.exp(0.5 * log_variance) * noise(), start


def _steps(x: Tensor, index: int) -> Tensor:
    """Step ``index`` for each picture, made where they are: nothing waits for the device."""
    return torch.full((len(x),), index, device=x.device)
