"""Stage 3: proximal policy optimisation against the reward model, with a penalty on the divergence from stage 1."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from models.core.run import Run
from models.core.training import pack_training, unpack_training
from models.summarize_feedback.decoding import draw
from models.summarize_feedback.examples import shift_right, trim
from models.summarize_feedback.network import Encoded, Encoder, Policy, lengths
from models.summarize_feedback.ppo_math import (
    generalised_advantages,
    kl_estimates,
    policy_loss,
    token_rewards,
    value_loss,
    whiten,
)  # fmt: skip
from models.summarize_feedback.schema import PolicyOptions
from models.summarize_feedback.scorer import Scorer
from models.summarize_feedback.tokenizer import PAD

_SAVE_EVERY = 25
_LOWEST_KL = -0.5  # a mean log-ratio below this means wrong masks or temperatures, not chance
Report = Callable[[float, str], None]
Visit = Callable[[int, Policy], None]


@dataclass(frozen=True, eq=False)
class Rollout:
    """Episodes of one iteration; all ``(B, T)`` but ``scores`` ``(B,)`` and the texts."""

    encoded: Encoded
    tokens: Tensor
    mask: Tensor
    log_probs: Tensor
    log_ratio: Tensor
    values: Tensor
    scores: Tensor


def tempered_log_probs(
    encoder: Encoder, policy: Policy, encoded: Encoded, tokens: Tensor, temperature: float
) -> Tensor:
    """Log-probabilities ``(B, T)`` of ``tokens`` ``(B, T)`` under ``softmax(log p / T)``; 0 at padding."""
    rows = (tokens != PAD)[:, None]
    found = policy(encoder, encoded, shift_right(tokens)[:, None], rows).float() / temperature
    chosen = found.log_softmax(dim=1).gather(1, tokens[:, None][rows][:, None]).squeeze(1)
    return torch.zeros(tokens.shape, device=chosen.device).masked_scatter(rows[:, 0], chosen)


class Trainer:
    """Policy and value network in training; reference policy, reward model and encoder stay as they are.

    The text is encoded once an iteration, and all four decoders attend to that.
    """

    def __init__(self, encoder: Encoder, reference: Policy, reward: Scorer, options: PolicyOptions, seed: int) -> None:
        self.encoder, self.reference, self.reward, self.options = encoder, reference, reward, options
        self.policy, self.value = deepcopy(reference), deepcopy(reward)
        trained = [*self.policy.parameters(), *self.value.parameters()]
        self.optimizer = torch.optim.Adam(trained, lr=options.learning_rate, eps=1e-5)
        self.generator = torch.Generator().manual_seed(seed)

    @torch.no_grad()
    def rollout(self, sources: Tensor) -> Rollout:
        """Draw one summary of each text ``(B, S)`` and judge it."""
        options = self.options
        encoded = self.encoder(trim(sources))
        uniform = torch.rand(len(sources), 1, options.max_tokens, generator=self.generator, dtype=torch.float64)
        drawn = draw(
            self.encoder, self.policy, encoded, uniform, temperature=options.temperature, max_tokens=options.max_tokens
        )
        tokens = drawn.tokens[:, 0]
        log_probs = tempered_log_probs(self.encoder, self.policy, encoded, tokens, options.temperature)
        before = tempered_log_probs(self.encoder, self.reference, encoded, tokens, options.temperature)
        scores = self.reward(self.encoder, self.reference, encoded, drawn.tokens)[:, 0]
        scores = torch.where(drawn.ended[:, 0], scores, torch.full_like(scores, options.missing_eos_reward))
        values = self._values(encoded, tokens)
        mask = torch.arange(tokens.shape[1], device=tokens.device) < lengths(tokens)[:, None]
        ratio = (log_probs - before).masked_fill(~mask, 0)
        return Rollout(encoded, tokens, mask, log_probs, ratio, values, scores)

    def _values(self, encoded: Encoded, tokens: Tensor) -> Tensor:
        return self.value.value(self.encoder, encoded, shift_right(tokens)[:, None])[:, 0]

    def update(self, rollout: Rollout) -> dict[str, float]:
        """Several passes over the episodes; what the first minibatch showed."""
        options = self.options
        rewards = token_rewards(rollout.log_ratio, rollout.scores, rollout.mask, options.beta)
        advantages, returns = generalised_advantages(rewards, rollout.values, rollout.mask, options.gae_lambda)
        advantages = whiten(advantages, rollout.mask)
        facts: dict[str, float] = {}
        for rows in self._minibatches(len(rollout.tokens)):
            encoded, tokens, mask = rollout.encoded.select(rows), rollout.tokens[rows], rollout.mask[rows]
            log_probs = tempered_log_probs(self.encoder, self.policy, encoded, tokens, options.temperature)
            ratio = (log_probs - rollout.log_probs[rows]).exp()
            values = self._values(encoded, tokens)
            policy = policy_loss(ratio, advantages[rows], options.clip)[mask].mean()
            value = value_loss(values, rollout.values[rows], returns[rows], options.value_clip)[mask].mean()
            self.optimizer.zero_grad()
            torch.autograd.backward(policy + options.value_coefficient * value)
            nn.utils.clip_grad_norm_([*self.policy.parameters(), *self.value.parameters()], 1.0)
            self.optimizer.step()
            off = (ratio[mask].detach() - 1).abs()
            if not facts:
                facts = {"first_ratio_error": float(off.max()), "value_loss": float(value.detach())}
        return facts | {"clipped": float((off > options.clip).float().mean())}

    def _minibatches(self, episodes: int) -> Iterator[Tensor]:
        count = min(self.options.minibatches, episodes)
        for _ in range(self.options.epochs):
            order = torch.randperm(episodes, generator=self.generator).to(self.encoder.embedding.weight.device)
            yield from order.tensor_split(count)


def train_ppo(
    encoder: Encoder, reference: Policy, reward: Scorer, sources: Tensor, options: PolicyOptions, run: Run,
    report: Report, visit: Visit | None = None,
) -> tuple[Policy, list[dict[str, float]]]:  # fmt: skip
    """Tune a copy of ``reference`` on the texts ``sources`` ``(N, S)``; resumes bit for bit.

    Args:
        visit: called with the number of finished iterations and the policy, before the first and after each.

    Returns:
        The policy, and what each iteration since the start or the resume point measured.

    Raises:
        Cancelled: the user asked for it.
        FloatingPointError: rewards or divergence show that training went wrong.
    """
    encoder.requires_grad_(False)
    sources = sources.to(encoder.embedding.weight.device)
    trainer = Trainer(encoder, reference, reward, options, run.seed)
    modules: dict[str, nn.Module] = {"policy": trainer.policy, "value": trainer.value}
    optimizers, generators = {"adam": trainer.optimizer}, {"draws": trainer.generator}
    state = run.load_state()
    done = 0
    if state is not None and state[1].get("stage") == "ppo":
        unpack_training(*state, modules, optimizers, generators)
        done = state[1]["iteration"]
    if visit is not None and done == 0:
        visit(0, trainer.policy)
    history = []
    for iteration in range(done, options.iterations):
        for group in trainer.optimizer.param_groups:
            group["lr"] = options.learning_rate * max(0.05, 1 - iteration / options.iterations)
        rows = np.random.default_rng([run.seed, iteration]).permutation(len(sources))[: options.batch_size]
        rollout = trainer.rollout(sources[torch.from_numpy(rows).to(sources.device)])
        facts = trainer.update(rollout) | _facts(rollout)
        if not all(np.isfinite(list(facts.values()))) or facts["kl"] < _LOWEST_KL:
            raise FloatingPointError(f"PPO went wrong in iteration {iteration + 1}: {facts}")
        history.append(facts)
        for name, value in facts.items():
            run.metric(name, value, iteration + 1)
        text = f"reward {facts['reward']:.3f}, KL {facts['kl']:.2f}, {facts['tokens']:.1f} tokens"
        report((iteration + 1) / options.iterations, f"iteration {iteration + 1} of {options.iterations}: {text}")
        if visit is not None:
            visit(iteration + 1, trainer.policy)
        if (iteration + 1) % _SAVE_EVERY == 0:
            arrays, meta = pack_training(modules, optimizers, generators)
            run.save_state(arrays, meta | {"stage": "ppo", "iteration": iteration + 1})
    return trainer.policy, history


def _facts(rollout: Rollout) -> dict[str, float]:
    k1, _, k3 = kl_estimates(rollout.log_ratio)
    return {
        "reward": float(rollout.scores.mean()),
        "kl": float(k1.sum(dim=1).mean()),
        "kl_k3": float(k3.masked_fill(~rollout.mask, 0).sum(dim=1).mean()),
        "tokens": float(rollout.mask.sum(dim=1).float().mean()),
    }
