"""What requests, training and the job kinds accept. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

_BEST_OF = 16


class Params(BaseModel):
    """How summaries are drawn and which of them are returned."""

    model_config = ConfigDict(extra="forbid")
    n: int = Field(
        default=1,
        ge=1,
        le=64,
        description="summaries returned for each text, the best first, repeats last",
    )
    best_of: int | None = Field(
        default=None,
        ge=1,
        le=128,
        description="summaries drawn for each text, of which the n with the highest reward are returned; "
        "unset: 16, or n where that is more; 1 at temperature 0",
    )
    max_tokens: int = Field(default=24, ge=4, le=32, description="longest summary, its end included")
    temperature: float = Field(default=0.7, ge=0, le=1.5, description="0 takes the likeliest token each time")
    top_p: float = Field(
        default=1.0, gt=0, le=1, description="draw from the likeliest tokens of this total probability"
    )
    policy: Literal["auto", "sft", "ppo"] = Field(
        default="auto",
        description="which policy writes: supervised, or tuned by PPO; auto: ppo where the version has it",
    )
    windows: int = Field(
        default=4,
        ge=1,
        le=16,
        description="a text longer than the context is read in up to so many windows, each its beginning and one more "
        "piece of it, the end among them; their candidates compete by reward",
    )
    seed: int = Field(default=0, ge=0, lt=2**63, description="another one gives other summaries of the same text")

    @model_validator(mode="after")
    def _check(self) -> Params:
        if self.best_of is not None and self.best_of < self.n:
            raise ValueError(f"best_of ({self.best_of}) must be at least n ({self.n})")
        if self.temperature == 0 and max(self.n, self.best_of or 1) > 1:
            raise ValueError("n, best_of: temperature 0 gives one summary; draw several at a higher temperature")
        return self

    @property
    def draws(self) -> int:
        """Summaries drawn for each text."""
        if self.temperature == 0:
            return 1
        return max(self.n, _BEST_OF) if self.best_of is None else self.best_of


def passes(n: int, params: Params) -> int:
    """Summaries that ``n`` texts need drawn."""
    return n * params.draws


class SupervisedOptions(BaseModel):
    """Stage 1: maximum likelihood."""

    model_config = ConfigDict(extra="forbid")
    epochs: float = Field(default=5, gt=0, le=100)
    max_steps: int | None = Field(default=None, ge=1, description="stop after so many steps, whatever the epochs")
    batch_size: int = Field(default=64, ge=1, le=1024)
    learning_rate: float = Field(default=1e-3, gt=0, le=0.1, description="after a warm-up; falls linearly to 5%")
    warmup: int = Field(default=200, ge=0, le=10_000, description="steps; at most a tenth of all")
    weight_decay: float = Field(default=0.01, ge=0, le=1)
    dropout: float = Field(default=0.1, ge=0, lt=1)

    def total_steps(self, examples: int) -> int:
        """Optimiser steps for so many examples."""
        steps = max(1, round(self.epochs * max(1, examples // self.batch_size)))
        return steps if self.max_steps is None else min(steps, self.max_steps)

    def warmup_steps(self, steps: int) -> int:
        """Steps of warm-up."""
        return max(1, min(self.warmup, steps // 10))


class RewardOptions(BaseModel):
    """Stage 2: a reward model from comparisons."""

    model_config = ConfigDict(extra="forbid")
    comparisons: Literal["simulated", "human", "mixed"] = Field(
        default="mixed", description="which are learnt from; mixed: what people stored beside simulated ones"
    )
    simulated: int = Field(default=12_000, ge=16, le=200_000, description="simulated comparisons, two or more a text")
    min_human: int = Field(default=200, ge=16, description="`human` needs so many stored comparisons")
    epochs: int = Field(default=1, ge=1, le=20)
    batch_size: int = Field(default=64, ge=2, le=1024)
    learning_rate: float = Field(default=1e-3, gt=0, le=0.1, description="after a warm-up of 20 steps; falls linearly")
    validation_share: float = Field(
        default=0.1, gt=0, le=0.5, description="of the texts, held out to measure agreement"
    )


class PolicyOptions(BaseModel):
    """Stage 3: PPO against the reward model."""

    model_config = ConfigDict(extra="forbid")
    beta: float = Field(default=0.1, ge=0, le=10, description="weight of the KL penalty towards the supervised policy")
    iterations: int = Field(default=50, ge=1, le=100_000, description="rollouts")
    batch_size: int = Field(default=128, ge=2, le=4096, description="episodes a rollout")
    epochs: int = Field(default=2, ge=1, le=16, description="passes over a rollout")
    minibatches: int = Field(default=2, ge=1, le=64)
    learning_rate: float = Field(default=1e-4, gt=0, le=0.1, description="of both networks; falls linearly")
    clip: float = Field(default=0.2, gt=0, lt=1)
    value_clip: float = Field(default=0.2, gt=0)
    value_coefficient: float = Field(default=0.1, ge=0)
    gae_lambda: float = Field(default=0.95, ge=0, le=1)
    temperature: float = Field(default=0.7, gt=0, le=2, description="of the rollouts and of every log-probability")
    max_tokens: int = Field(default=24, ge=4, le=32)
    missing_eos_reward: float = Field(default=-1.0, description="instead of the reward of a summary without an end")


class Sizes(BaseModel):
    """Sizes of the networks, in the stage `sft`."""

    model_config = ConfigDict(extra="forbid")
    vocabulary: int = Field(default=4096, ge=320, le=65_536, description="tokens, 260 of them bytes and specials")
    width: int = Field(default=128, ge=16, le=2048)
    heads: int = Field(default=4, ge=1, le=32)
    encoder_layers: int = Field(default=3, ge=1, le=24)
    decoder_layers: int = Field(default=2, ge=1, le=24)
    source_tokens: int = Field(default=96, ge=8, le=4096, description="lead of a text that is read")

    @model_validator(mode="after")
    def _check(self) -> Sizes:
        if self.width % self.heads:
            raise ValueError(f"width ({self.width}) must be a multiple of heads ({self.heads})")
        return self


class Config(BaseModel):
    """Training of one of the three stages on pairs of a text and its summary."""

    model_config = ConfigDict(extra="forbid")
    stage: Literal["sft", "reward", "ppo"] = Field(
        default="sft",
        description="sft: supervised, from nothing; reward: a reward model for `base`; ppo: tune the policy of `base` "
        "against its reward model",
    )
    base: str | None = Field(
        default=None,
        pattern=r"^[a-z][a-z0-9-]{1,62}(@[A-Za-z0-9][A-Za-z0-9._-]{0,62})?$",
        description="version that the stages reward and ppo start from; unset: the shipped one",
    )
    feedback_share: float = Field(
        default=0,
        ge=0,
        le=0.9,
        description="of the texts, by how they begin: stage sft leaves them to the other stages, which use no others, "
        "since a policy knows the summaries that it was trained on by heart; 0: every stage uses every text",
    )
    sizes: Sizes = Field(default=Sizes(), description="stage sft; the other stages keep those of their base")
    sft: SupervisedOptions = Field(default=SupervisedOptions())
    reward: RewardOptions = Field(default=RewardOptions())
    ppo: PolicyOptions = Field(default=PolicyOptions())


PRESETS: Mapping[str, Config] = {
    "cpu": Config(),
    "paper": Config(
        sizes=Sizes(vocabulary=32_768, width=1024, heads=16, encoder_layers=12, decoder_layers=12, source_tokens=512),
        sft=SupervisedOptions(epochs=1, batch_size=128, learning_rate=6.35e-5),
        reward=RewardOptions(simulated=92_000, learning_rate=1.5e-5),
        ppo=PolicyOptions(beta=0.05, iterations=2000, batch_size=512, epochs=4, minibatches=8, learning_rate=1.5e-5),
    ),
}


class BestOfNReport(BaseModel):
    """Parameters of a ``best-of-n-report`` job."""

    model_config = ConfigDict(extra="forbid")
    texts: int = Field(default=200, ge=2, le=5000, description="first texts of the data set")
    samples: int = Field(default=64, ge=2, le=128, description="drawn for each text; the largest n")
    temperature: float = Field(default=0.7, gt=0, le=1.5)
    policy: Literal["sft", "ppo"] = "sft"


class OverOptimizationReport(BaseModel):
    """Parameters of an ``over-optimization-report`` job."""

    model_config = ConfigDict(extra="forbid")
    texts: int = Field(default=200, ge=2, le=5000, description="first texts of the data set")
    betas: list[float] = Field(default=[0.4, 0.1, 0.02, 0.0], min_length=1, max_length=12)
    checkpoints: int = Field(default=5, ge=1, le=50, description="measurements along each run")
    ppo: PolicyOptions = Field(default=PolicyOptions(), description="its beta is not used")

    @model_validator(mode="after")
    def _check(self) -> OverOptimizationReport:
        if any(not 0 <= beta <= 10 for beta in self.betas):
            raise ValueError("betas: each must be in 0..10")
        return self


class LabelAgreement(BaseModel):
    """Parameters of a ``label-agreement`` job."""

    model_config = ConfigDict(extra="forbid")
    simulated: int = Field(default=1000, ge=0, le=20_000, description="simulated comparisons made from the data set")
