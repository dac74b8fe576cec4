"""The game of the robust Wasserstein GAN: critic, generator, and weights of the training pictures."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from models.core.inputs import Float64, UInt8
from models.core.replay import Replayed
from models.robust_ot.dual import robust_expectation
from models.robust_ot.networks import (
    Critic,
    Generator,
    WeightsNetwork,
    divergence,
    gradient_penalty,
    normalised,
)
from models.robust_ot.schema import Config

PENALTY = 100.0
_SCORED_AT_ONCE = 2048


def to_network(pictures: UInt8, device: torch.device) -> Tensor:
    """uint8 ``(N, H, W, C)`` to float32 ``(N, C, H, W)`` in [-1, 1]."""
    return _scaled(torch.from_numpy(pictures).to(device).permute(0, 3, 1, 2))


def _scaled(pictures: Tensor) -> Tensor:
    return pictures.float() / 127.5 - 1.0


class RobustGAN:
    """``min_{G, w} max_{D 1-Lipschitz} E_x[w(x) D(x)] - E_z[D(G(z))]`` with the weights in a chi-square ball.

    Only the real side is relaxed. The weights are one number a picture, found exactly from the critic's scores of all
    pictures (averaged over the solutions, for single critics are noisy), or a network's output, kept in the ball by a
    penalty that is measured in standard deviations of the critic.

    Args:
        pictures: uint8 ``(N, size, size, C)`` training pictures.
        seed: of the networks, the batches and the latent vectors.

    Attributes:
        critic_loss: float32 scalar, of the latest critic step, without the gradient penalty.
    """

    def __init__(self, pictures: UInt8, config: Config, seed: int, device: torch.device) -> None:
        self.pictures, self.config, self.device = pictures, config, device
        self.random = torch.Generator(device).manual_seed(seed)
        channels = pictures.shape[3]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.generator = Generator(config, channels).to(device)
            self.critic = Critic(config, channels).to(device)
            self.weigher = WeightsNetwork(config, channels).to(device)
        self.modules: dict[str, torch.nn.Module] = {"generator": self.generator, "critic": self.critic}
        if config.weighting == "network":
            self.modules["weigher"] = self.weigher
        recorded = device.type == "cuda"
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            name: torch.optim.Adam(module.parameters(), config.learning_rate, config.betas, capturable=recorded)
            for name, module in self.modules.items()
        }
        self._real = torch.from_numpy(pictures).to(device).permute(0, 3, 1, 2).contiguous()
        self._chosen = torch.zeros(config.batch, dtype=torch.int64, device=device)
        self._shares = torch.ones(len(pictures), device=device)
        self.scores: Float64 = np.zeros(len(pictures))
        self.set_weights(np.ones(len(pictures)))
        self.critic_loss = torch.zeros((), device=device)
        self._critic_step, self._generator_step, self._weigher_step = (
            Replayed(step, device, self.random)
            for step in (self._move_critic, self._move_generator, self._move_weigher)
        )

    def step(self, number: int) -> None:
        """Critic step ``number`` (from 1), and the other steps that are due."""
        config = self.config
        self._critic_step()
        if number % config.critic_steps == 0:
            self._generator_step()
        if config.outlier_fraction > 0.0 and number > config.warmup:
            if config.weighting == "network" and number % config.weight_every == 0:
                self._weigher_step()
            if config.weighting == "discrete" and number % config.solve_every == 0:
                self._solve()

    def samples(self, count: int, seed: int) -> UInt8:
        """Generated pictures, uint8 ``(count, size, size, C)``."""
        return generate(self.generator, self.config, count, seed, self.device)

    def set_weights(self, weights: Float64) -> None:
        """Replace the discrete weights, float64 ``(N,)`` with mean one."""
        self.sample_weights = weights
        self._shares.copy_(torch.from_numpy(weights))

    def final_weights(self) -> Float64:
        """One weight a training picture, mean one: float64 ``(N,)``."""
        if self.config.weighting == "discrete" or self.config.outlier_fraction <= 0.0:
            return self.sample_weights
        raw = self._over_all(self.weigher)
        return np.asarray(raw / raw.mean())

    def critic_scores(self) -> Float64:
        """The critic's scores of the training pictures: float64 ``(N,)``."""
        return self._over_all(self.critic)

    def facts(self) -> dict[str, float]:
        """What was measured of the weights, on the whole training set."""
        return weight_facts(self.final_weights(), self.config.rho)

    def _weights(self, real: Tensor) -> Tensor:
        if self.config.weighting == "network" and self.config.outlier_fraction > 0.0:
            with torch.no_grad():
                return normalised(self.weigher(real))
        return normalised(self._shares[self._chosen] + 1e-8)

    def _latent(self) -> Tensor:
        return torch.randn(self.config.batch, self.config.latent, generator=self.random, device=self.device)

    def _move_critic(self) -> None:
        torch.randint(len(self.pictures), self._chosen.shape, generator=self.random, out=self._chosen)
        real = _scaled(self._real[self._chosen])
        with torch.no_grad():
            fake = self.generator(self._latent())
        loss = self.critic(fake).mean() - (self._weights(real) * self.critic(real)).mean()
        total = loss + self.config.penalty * gradient_penalty(self.critic, real, fake, self.random)
        self._descend("critic", total)
        self.critic_loss.copy_(loss.detach())

    def _move_generator(self) -> None:
        self._descend("generator", -self.critic(self.generator(self._latent())).mean())

    def _move_weigher(self) -> None:
        real = _scaled(self._real[self._chosen])
        with torch.no_grad():
            scores = self.critic(real)
            scores = (scores - scores.mean()) / scores.std().clamp_min(1e-6)
        weights = normalised(self.weigher(real))
        excess = torch.relu(divergence(weights) - self.config.rho)
        self._descend("weigher", (weights * scores).mean() + PENALTY * excess)

    def _descend(self, name: str, loss: Tensor) -> None:
        optimizer = self.optimizers[name]
        optimizer.zero_grad(set_to_none=True)
        # The generator's loss goes through the critic, whose gradients it does not need.
        loss.backward(inputs=list(self.modules[name].parameters()))  # type: ignore[no-untyped-call]
        optimizer.step()

    def _solve(self) -> None:
        scores = self.critic_scores()
        scores = (scores - scores.mean()) / max(float(scores.std()), 1e-12)
        first, momentum = not self.scores.any(), self.config.score_momentum
        self.scores = scores if first else momentum * self.scores + (1.0 - momentum) * scores
        uniform = np.full(len(scores), 1.0 / len(scores))
        self.set_weights(robust_expectation(self.scores, uniform, self.config.rho).weights)

    @torch.no_grad()
    def _over_all(self, module: torch.nn.Module) -> Float64:
        parts = [module(_scaled(part)).double() for part in torch.split(self._real, _SCORED_AT_ONCE)]
        return torch.cat(parts).cpu().numpy()


def weight_facts(weights: Float64, rho: float) -> dict[str, float]:
    """How far weights ``(N,)`` of mean one went, beside the radius that they were to keep."""
    return {
        "chi_square": float(0.5 * np.mean((weights - 1.0) ** 2)),
        "rho": rho,
        "share_below_half": float((weights < 0.5).mean()),
        "largest": float(weights.max()),
    }


@torch.no_grad()
def generate(generator: Generator, config: Config, count: int, seed: int, device: torch.device) -> UInt8:
    """Pictures of seeded latent vectors, uint8 ``(count, size, size, C)``; normalised by running statistics."""
    latent = torch.randn(count, config.latent, generator=torch.Generator().manual_seed(seed))
    generator.eval()
    parts = [generator(part.to(device)).cpu() for part in torch.split(latent, _SCORED_AT_ONCE)]
    generator.train()
    pictures = torch.cat(parts).permute(0, 2, 3, 1)
    return ((pictures + 1.0) * 127.5).round().clamp(0, 255).byte().numpy()
