"""Parameters of requests, trainings and jobs."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from models.core.trainer_options import SharpnessAware

Sampler = Literal["ddim", "ddpm"]
Variance = Literal["learned", "small", "large"]


class Params(BaseModel):
    """What one request for pictures may choose."""

    model_config = ConfigDict(extra="forbid")
    guidance_scale: float = Field(
        default=2.0,
        ge=0,
        le=20,
        description="how strongly the classifier of noisy pictures steers: larger is truer to the class and less "
        "diverse; 0 leaves it out",
    )
    sampler: Sampler = Field(
        default="ddim", description="`ddim` needs few steps; `ddpm` draws noise in every step (ancestral sampling)"
    )
    steps: int = Field(
        default=25, ge=2, le=1000, description="passes through the network, evenly spaced over training's"
    )
    eta: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="`ddim`: noise drawn in each step, 0 none, 1 as much as `ddpm`; unset: what suits the version",
    )
    clip_denoised: bool = Field(
        default=True, description="keep every step's estimate of the picture within black and white"
    )
    guidance_at: Literal["x", "mean"] = Field(
        default="mean",
        description="`ddpm`: where the classifier's gradient is taken, at the noisy picture (the official code) or at "
        "the mean of the next one (the paper)",
    )
    guidance_interval: tuple[float, float] = Field(
        default=(0.0, 1.0),
        description="the classifier acts where a step's share of the process is in [low, high]; 0 is the picture",
    )
    variance: Variance = Field(
        default="learned",
        description="`ddpm`: of each step; `small` and `large` are the fixed bounds between which it is learned",
    )
    unconditional: bool = Field(
        default=False,
        description="the denoiser is told no class (null label); the classifier still steers where a class is given",
    )

    @field_validator("guidance_interval")
    @classmethod
    def _ordered(cls, interval: tuple[float, float]) -> tuple[float, float]:
        low, high = interval
        if not 0 <= low <= high <= 1:
            raise ValueError("needs 0 <= low <= high <= 1")
        return interval


def passes(n: int, params: Params) -> int:
    """Forward passes through the denoiser that ``n`` pictures need."""
    return n * params.steps


class Config(BaseModel):
    """A training configuration; the defaults are the preset `cpu`."""

    model_config = ConfigDict(extra="forbid")
    target: Literal["both", "diffusion", "classifier"] = Field(
        default="both", description="what learns; `classifier` alone steers the shipped denoiser by your own labels"
    )
    image_size: int = Field(default=28, ge=8, le=64, description="pictures are resized to this square, pixels")
    channels: Literal["auto", "grey", "colour"] = Field(default="auto", description="auto: as the data set has it")
    width: int = Field(default=32, ge=8, le=256, description="channels at full resolution")
    multipliers: list[float] = Field(
        default=[1, 2, 2], min_length=1, max_length=6, description="of the width, one a resolution, each half the last"
    )
    depth: int = Field(default=1, ge=1, le=4, description="residual blocks a resolution")
    attention: list[int] = Field(default=[7], max_length=6, description="resolutions with attention, pixels")
    head_channels: int = Field(default=32, ge=4, le=128, description="channels of an attention head")
    groups: int = Field(default=8, ge=1, le=64, description="groups of every normalisation")
    dropout: float = Field(default=0.0, ge=0, lt=1)
    timesteps: int = Field(default=1000, ge=10, le=4000, description="T, steps of the whole process")
    schedule: Literal["linear", "cosine"] = "cosine"
    learned_variance: bool = Field(
        default=True, description="learn each step's variance by the hybrid loss; else mean error only"
    )
    time_sampling: Literal["uniform", "loss-second-moment"] = "uniform"
    null_label: float = Field(
        default=0.15,
        ge=0,
        le=1,
        description="share of training labels replaced by the null label, for unconditional samples",
    )
    steps: int = Field(default=5000, ge=1, le=2_000_000, description="updates of the denoiser")
    batch_size: int = Field(default=64, ge=1, le=2048)
    learning_rate: float = Field(default=1e-3, gt=0, le=0.1)
    final_rate: float = Field(
        default=0.1, ge=0, le=1, description="last learning rate as a share of the first, by a cosine"
    )
    warmup: int = Field(
        default=200, ge=0, le=100_000, description="updates over which the learning rate rises from zero"
    )
    clip_norm: float = Field(default=1.0, gt=0, le=1e6, description="largest norm of the gradient")
    ema: float = Field(
        default=0.999, ge=0, lt=1, description="decay of the average of weights that samples are drawn from"
    )
    flip: bool = Field(default=False, description="mirror half of the pictures; not for digits, letters, shoes")
    classifier_width: int = Field(default=32, ge=8, le=256)
    classifier_depth: int = Field(default=1, ge=1, le=4)
    classifier_steps: int = Field(default=1500, ge=1, le=2_000_000, description="updates of the classifier")
    classifier_rate: float = Field(
        default=3e-4, gt=0, le=0.1, description="its first learning rate, falling linearly to 0"
    )
    classifier_decay: float = Field(default=0.05, ge=0, le=1, description="its weight decay")
    classifier_sharpness_aware: SharpnessAware = Field(
        default=SharpnessAware(), description="the classifier minimises the largest loss near its weights"
    )
    crop: int = Field(
        default=0, ge=0, le=16, description="the classifier sees pictures moved by up to this many pixels"
    )
    eta: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="of requests that name none: 0 draws the most diverse pictures, 1 takes the grain off those of a "
        "short training",
    )
    held_out: int = Field(
        default=0, ge=0, le=10_000, description="pictures kept apart to measure during training, at most a tenth"
    )
    judge_steps: int = Field(default=800, ge=1, le=100_000, description="updates of the classifier of clean pictures")
    precision: Literal["float32", "bfloat16"] = Field(
        default="bfloat16", description="of products and convolutions in training"
    )
    compile: bool = Field(
        default=False,
        description="compile the networks before training: needs a C++ compiler, half a minute, and pays with bfloat16",
    )

    @model_validator(mode="after")
    def _fits(self) -> Config:
        levels = len(self.multipliers)
        if self.image_size % 2 ** (levels - 1):
            raise ValueError(
                f"image_size: {self.image_size} cannot be halved {levels - 1} times; use fewer multipliers"
            )
        for name, width in (("width", self.width), ("classifier_width", self.classifier_width)):
            for multiplier in self.multipliers:
                channels = int(multiplier * width)
                if not channels or channels % self.groups:
                    raise ValueError(f"{name}: {multiplier} * {width} channels are no multiple of {self.groups} groups")
        return self


PRESETS = {
    "cpu": Config(),
    "paper": Config(
        image_size=64,
        width=192,
        multipliers=[1, 2, 3, 4],
        depth=3,
        attention=[32, 16, 8],
        head_channels=64,
        groups=32,
        dropout=0.1,
        null_label=0.0,
        steps=540_000,
        batch_size=256,
        learning_rate=1e-4,
        final_rate=1.0,
        warmup=0,
        ema=0.9999,
        flip=True,
        classifier_width=128,
        classifier_depth=4,
        classifier_steps=300_000,
        crop=4,
    ),
}


class GuidanceSweep(BaseModel):
    """Parameters of the job `guidance-sweep`."""

    model_config = ConfigDict(extra="forbid")
    scales: list[float] = Field(
        default=[0, 1, 2, 4, 8], min_length=1, max_length=12, description="guidance scales, 0 to 20 each"
    )
    samples: int = Field(
        default=200, ge=20, le=5000, description="pictures drawn at each scale, classes in equal parts"
    )
    seed: int = Field(default=0, ge=0, lt=1 << 62, description="of the first picture")
    params: Params = Field(default_factory=Params, description="the other parameters of the samples")

    @field_validator("scales")
    @classmethod
    def _in_range(cls, scales: list[float]) -> list[float]:
        if any(not 0 <= scale <= 20 for scale in scales):
            raise ValueError("every scale is from 0 to 20")
        return scales


class EvaluateImages(BaseModel):
    """Parameters of the job `evaluate-images`."""

    model_config = ConfigDict(extra="forbid")
    reference: str | None = Field(
        default=None, description="id of the data set to compare with; unset: pictures that the version draws"
    )
    samples: int = Field(default=1000, ge=20, le=10_000, description="pictures of each side, the same number of both")
    neighbours: int = Field(default=3, ge=1, le=20, description="k of precision and recall")
    seed: int = Field(default=0, ge=0, lt=1 << 62, description="of the choice of pictures, and of the drawn ones")


class Likelihood(BaseModel):
    """Parameters of the job `likelihood`."""

    model_config = ConfigDict(extra="forbid")
    samples: int = Field(default=64, ge=1, le=2000, description="pictures measured, a random choice")
    steps: int = Field(default=50, ge=2, le=4000, description="steps of the bound; fewer are looser and cheaper")
    seed: int = Field(default=0, ge=0, lt=1 << 62, description="of the choice and of the noise")
