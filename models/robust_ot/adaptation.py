"""Robust adversarial domain adaptation: features that a critic cannot tell apart, but for the target's outliers."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from models.core.classifiers import Architecture, Classifier, build_classifier
from models.core.inputs import Float64
from models.core.replay import Replayed
from models.robust_ot.dual import robust_expectation
from models.robust_ot.schema import AdaptParameters

HIDDEN = 256
MOMENTUM, WEIGHT_DECAY = 0.9, 5e-4
_SCORED_AT_ONCE = 512


def feature_critic(features: int) -> nn.Sequential:
    """Scores of features, float32 ``(N, D)`` to ``(N, 1)``, high for the source: three layers of spectral norm one."""
    sizes = (features, HIDDEN, HIDDEN)
    layers: list[nn.Module] = []
    for size in sizes[:-1]:
        layers += [spectral_norm(nn.Linear(size, HIDDEN)), nn.ReLU()]
    return nn.Sequential(*layers, spectral_norm(nn.Linear(HIDDEN, 1)))


def domain_loss(source: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """``mean softplus(-D(s)) + mean w softplus(D(t))`` of critic scores ``(N,)``: cross-entropy of the domains."""
    return F.softplus(-source).mean() + (weights * F.softplus(target)).mean()


class Adaptation:
    """``min_{F, C} max_{w} min_D`` of the domains' cross-entropy, on top of the classification of the source.

    The critic ``D`` descends the domains' cross-entropy, the features ``F`` ascend it, and so do the weights of the
    target's samples, within a chi-square ball: target samples that the critic tells from the source with certainty
    lose their weight, and the features need not hide them (Balaji et al. 2020, section 5.2).

    Args:
        source: uint8 ``(N, C, H, W)`` or float32 ``(N, D)``, labelled by ``labels`` ``(N,)``.
        target: likewise, ``(M, ...)``, without labels.
        seed: of the networks and the batches.

    Attributes:
        losses: float32 scalars of the latest step, ``classification`` and ``critic``.
    """

    def __init__(
        self,
        source: Tensor,
        labels: Tensor,
        classes: int,
        target: Tensor,
        parameters: AdaptParameters,
        seed: int,
        device: torch.device,
    ) -> None:
        self.parameters, self.device = parameters, device
        self.source, self.labels, self.target = source.to(device), labels.to(device), target.to(device)
        self.random = torch.Generator(device).manual_seed(seed)
        self.architecture: Architecture = "mlp" if source.ndim == 2 else "small-cnn"
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network: Classifier = build_classifier(self.architecture, source, classes).to(device)
            body = self.network.body
            assert isinstance(body, nn.Sequential) and isinstance(body[-1], nn.Linear)
            self.layers, self.head = body[:-1], body[-1]
            self.critic = feature_critic(self.head.in_features).to(device)
        self.modules: dict[str, nn.Module] = {"network": self.network, "critic": self.critic}
        # A tensor and the fused update: a recorded step reads the rate anew at every replay.
        self._rate = torch.tensor(parameters.learning_rate, device=device)
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "network": torch.optim.SGD(
                self.network.parameters(), self._rate, MOMENTUM, weight_decay=WEIGHT_DECAY, fused=True
            ),
            "critic": torch.optim.Adam(
                self.critic.parameters(), parameters.critic_learning_rate, capturable=device.type == "cuda"
            ),
        }
        self._shares = torch.ones(len(target), device=device)
        self.set_weights(np.ones(len(target)))
        self.losses = {name: torch.zeros((), device=device) for name in ("classification", "critic")}
        self._on_source, self._on_both, self._adversarial = (
            Replayed(step, device, self.random)
            for step in (self._move_on_source, partial(self._move, False), partial(self._move, True))
        )

    def step(self, number: int) -> None:
        """Step ``number``, from 1."""
        parameters = self.parameters
        self._rate.fill_(parameters.learning_rate * (1 + 1e-4 * number) ** -0.75)
        self.optimizers["network"].param_groups[0]["lr"] = self._rate
        if number <= parameters.source_steps:
            self._on_source()
            return
        if number % parameters.critic_steps == 0:
            self._adversarial()
        else:
            self._on_both()
        if number % parameters.solve_every == 0:
            self._solve()

    def set_weights(self, weights: Float64) -> None:
        """Replace the target's weights, float64 ``(M,)`` with mean one."""
        self.weights = weights
        self._shares.copy_(torch.from_numpy(weights))

    def features(self, inputs: Tensor) -> Tensor:
        """What the critic sees of ``inputs``: float32 ``(B, D)``."""
        found: Tensor = self.layers((inputs.float() - self.network.mean) / self.network.std)
        return found

    def _scores(self, features: Tensor) -> Tensor:
        scores: Tensor = self.critic(features)
        return scores[:, 0]

    def _draw(self, count: int) -> Tensor:
        return torch.randint(count, (self.parameters.batch,), generator=self.random, device=self.device)

    def _classified(self) -> tuple[Tensor, Tensor]:
        """Features of a batch of the source, and the loss of their classification."""
        chosen = self._draw(len(self.source))
        source = self.features(self.source[chosen])
        loss = F.cross_entropy(self.head(source), self.labels[chosen])
        self.losses["classification"].copy_(loss.detach())
        return source, loss

    def _move_on_source(self) -> None:
        self._descend("network", self._classified()[1])

    def _move(self, adversarial: bool) -> None:
        source, total = self._classified()
        rows = self._draw(len(self.target))
        target, weights = self.features(self.target[rows]), self._shares[rows]
        critic_loss = domain_loss(self._scores(source.detach()), self._scores(target.detach()), weights)
        self._descend("critic", critic_loss)
        self.losses["critic"].copy_(critic_loss.detach())
        if adversarial:
            total = total - domain_loss(self._scores(source), self._scores(target), weights)
        if self.parameters.entropy_weight > 0.0:
            log_shares = self.head(target).log_softmax(dim=1)
            entropy = -(log_shares.exp() * log_shares).sum(dim=1)
            total = total + self.parameters.entropy_weight * (weights * entropy).mean()
        self._descend("network", total)

    def _descend(self, name: str, loss: Tensor) -> None:
        # The features' loss goes through the critic, whose gradients it does not need.
        self.optimizers[name].zero_grad(set_to_none=True)
        loss.backward(inputs=list(self.modules[name].parameters()))  # type: ignore[no-untyped-call]
        self.optimizers[name].step()

    @torch.no_grad()
    def _solve(self) -> None:
        """The worst weights for the critic: samples that it is sure to be of the target lose theirs."""
        if self.parameters.outlier_fraction <= 0.0:
            return
        self.critic.eval()
        parts = torch.split(self.target, _SCORED_AT_ONCE)
        scores = torch.cat([self._scores(self.features(part)).double().cpu() for part in parts])
        self.critic.train()
        uniform = np.full(len(scores), 1.0 / len(scores))
        self.set_weights(robust_expectation(-F.softplus(scores).numpy(), uniform, self.parameters.rho).weights)
