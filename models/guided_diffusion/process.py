"""The diffusion process on tensors: noising, the posterior, the learned variance and the losses.

Sources: Ho et al. 2020 (eq. 4-12), Nichol & Dhariwal 2021 (eq. 14-16). Pictures are float32 ``(B, C, H, W)`` in
[-1, 1], steps int64 ``(B,)`` indices into the schedule.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from models.core.inputs import Float64
from models.guided_diffusion.schedule import Schedule
from models.guided_diffusion.schema import Variance

HALF_BIN = 1 / 255


class Process:
    """A schedule's tables on a device; computed in float64, gathered to float32.

    Args:
        trusted: the noisiest step of the full process at which the network's estimate of a picture is used, and the
            share of signal there: noisier pictures are shown to the network, and read, as if they were of that step.
            None: all steps.
    """

    def __init__(
        self, schedule: Schedule, device: torch.device | str = "cpu", trusted: tuple[int, float] | None = None
    ) -> None:
        self.schedule = schedule
        last, least = trusted or (int(schedule.timesteps[-1]), 0.0)
        self.timesteps = torch.from_numpy(np.minimum(schedule.timesteps, last)).to(device)

        def table(values: Float64) -> Tensor:
            return torch.from_numpy(values).float().to(device)

        kept = schedule.alphas_bar
        self.signal, self.noise = table(kept**0.5), table((1 - kept) ** 0.5)
        read = np.maximum(kept, least)
        self.read_noise = table((1 - read) ** 0.5)
        self.inverse_signal, self.noise_over_signal = table(read**-0.5), table((1 / read - 1) ** 0.5)
        self.start, self.noisy = table(schedule.posterior_start), table(schedule.posterior_noisy)
        self.log_posterior = table(schedule.posterior_log_variance)
        self.log_beta = table(np.log(schedule.betas))
        self.log_large = table(np.log(np.concatenate([schedule.posterior_variance[1:2], schedule.betas[1:]])))

    def __len__(self) -> int:
        return len(self.schedule)

    def noised(self, start: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """``x_t = sqrt(A_t) x_0 + sqrt(1 - A_t) e``."""
        return at(self.signal, t) * start + at(self.noise, t) * noise

    def start_from_noise(self, x: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """x_0 that ``noise`` implies, at the step that the network was told."""
        return at(self.inverse_signal, t) * x - at(self.noise_over_signal, t) * noise

    def noise_from_start(self, x: Tensor, t: Tensor, start: Tensor) -> Tensor:
        """Noise that ``start`` implies."""
        return (x - at(self.signal, t) * start) / at(self.noise, t)

    def posterior_mean(self, start: Tensor, x: Tensor, t: Tensor) -> Tensor:
        """Mean of q(x_{t-1} | x_t, x_0)."""
        return at(self.start, t) * start + at(self.noisy, t) * x

    def log_variance(self, kind: Variance, t: Tensor, v: Tensor | None) -> Tensor:
        """Logarithm of the variance of a step down.

        Args:
            kind: ``learned`` interpolates between the bounds by ``v`` (eq. 15): ``f log b_t + (1 - f) log b~_t`` with
                ``f = (v + 1) / 2``; ``small`` is b~_t, ``large`` b_t (at step 0, b~ of step 1).
            v: the network's second half, as large as the pictures; needed for ``learned``.
        """
        if kind == "small":
            return at(self.log_posterior, t)
        if kind == "large":
            return at(self.log_large, t)
        assert v is not None
        share = (v + 1) / 2
        return share * at(self.log_beta, t) + (1 - share) * at(self.log_posterior, t)

    def variational_bound(self, start: Tensor, x: Tensor, t: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
        """One term of the variational bound, bits a pixel: ``(B,)``.

        The KL divergence from the posterior to the model's step; at step 0 the likelihood of its 8-bit values.
        """
        divergence = gaussian_kl(self.posterior_mean(start, x, t), at(self.log_posterior, t), mean, log_variance)
        likelihood = -discretised_log_likelihood(start, mean, 0.5 * log_variance)
        bits = torch.where((t == 0)[:, None, None, None], likelihood, divergence) / math.log(2)
        return bits.flatten(1).mean(dim=1)

    def losses(self, output: Tensor, start: Tensor, x: Tensor, t: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """The simple loss and, where the variance is learned, the bound's term: ``(B,)`` each (zeros otherwise).

        The bound's mean is detached: only the variance learns from it (Nichol & Dhariwal, section 3.1).
        """
        channels = start.shape[1]
        predicted = output[:, :channels]
        simple = (predicted - noise).square().flatten(1).mean(dim=1)
        if output.shape[1] == channels:
            return simple, torch.zeros_like(simple)
        mean = self.posterior_mean(self.start_from_noise(x, t, predicted.detach()), x, t)
        log_variance = self.log_variance("learned", t, output[:, channels:])
        return simple, self.variational_bound(start, x, t, mean, log_variance)


def at(table: Tensor, t: Tensor) -> Tensor:
    """Entries of ``table`` at steps ``(B,)``, shaped to multiply pictures: ``(B, 1, 1, 1)``."""
    return table[t][:, None, None, None]


def gaussian_kl(mean: Tensor, log_variance: Tensor, other: Tensor, other_log_variance: Tensor) -> Tensor:
    """KL divergence of N(mean, variance) from N(other, other variance), nats, elementwise."""
    difference = (mean - other).square() * torch.exp(-other_log_variance)
    return 0.5 * (other_log_variance - log_variance + torch.exp(log_variance - other_log_variance) + difference - 1)


def discretised_log_likelihood(x: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """Log-probability, nats, of the 8-bit value ``x`` (scaled to [-1, 1]) under a Gaussian; the end bins are open.

    A bin far out in a tail is bounded by 1e-12, below which float32 cannot resolve it.
    """
    inverse = torch.exp(-log_scale)
    above, below = (inverse * (x - mean + side) for side in (HALF_BIN, -HALF_BIN))
    upper, lower = torch.special.ndtr(above), torch.special.ndtr(below)
    inner = (upper - lower).clamp_min(1e-12).log()
    highest = torch.special.log_ndtr(-below)
    lowest = torch.special.log_ndtr(above)
    return torch.where(x < -0.999, lowest, torch.where(x > 0.999, highest, inner))


def prior_bits(process: Process, start: Tensor) -> Tensor:
    """KL divergence of q(x_T | x_0) from the standard normal, bits a pixel: ``(B,)``."""
    kept = float(process.schedule.alphas_bar[-1])
    log_variance = start.new_full((), math.log1p(-kept))
    nats = gaussian_kl(kept**0.5 * start, log_variance, torch.zeros_like(start), torch.zeros_like(log_variance))
    return nats.flatten(1).mean(dim=1) / math.log(2)
