"""Parameters of requests, trainings and jobs."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from models.core.trainer_options import SharpnessAware

Space = Literal["penultimate", "projection"]


class Params(BaseModel):
    """What one embedding request may choose."""

    model_config = ConfigDict(extra="forbid")
    space: Space = Field(
        default="penultimate",
        description="`penultimate` (before the head) transfers best to classifiers and probes; `projection` is the "
        "hypersphere that was trained, for similarity search",
    )
    normalize: bool = Field(default=True, description="scale each vector to unit length")
    dimensions: int | None = Field(
        default=None,
        ge=1,
        description="keep this many principal axes (then scale to unit length again where `normalize`); the full "
        "length when absent",
    )


class Config(BaseModel):
    """A training configuration; the defaults are the preset `cpu`."""

    model_config = ConfigDict(extra="forbid")
    align_weight: float = Field(default=1.0, ge=0, le=10, description="weight of the alignment loss")
    uniform_weight: float = Field(default=1.0, ge=0, le=10, description="weight of the uniformity loss")
    contrastive_weight: float = Field(default=0.0, ge=0, le=10, description="weight of the NT-Xent loss")
    alpha: float = Field(default=2.0, ge=0.5, le=4, description="power of the distance in the alignment loss")
    t: float = Field(default=2.0, ge=0.1, le=16, description="sharpness of the Gaussian kernel of the uniformity loss")
    temperature: float = Field(default=0.5, ge=0.05, le=1, description="of the NT-Xent loss")
    uniform_within: Literal["view", "joint"] = Field(
        default="view", description="pairs of one view, or of both views pooled without the positive pairs"
    )
    encoder: Literal["conv5", "small-alexnet"] = Field(
        default="conv5", description="of pictures; texts are pooled from vectors of their words"
    )
    width: int = Field(default=32, ge=4, le=256, description="channels of the first convolution of conv5")
    feat_dim: int = Field(default=64, ge=2, le=512, description="dimensions of the hypersphere's space")
    image_size: int = Field(default=28, ge=16, le=256, description="pictures are resized to this square, pixels")
    channels: Literal["auto", "grey", "colour"] = Field(default="auto", description="auto: as the data set has it")
    epochs: int = Field(default=10, ge=1, le=10_000)
    batch_size: int = Field(default=256, ge=32, le=2048)
    optimizer: Literal["adam", "sgd"] = "adam"
    lr: float | None = Field(
        default=None,
        gt=0,
        le=10,
        description="unset: 0.003 (texts: 0.0003) for adam, 0.12 * batch/256 for sgd",
    )
    weight_decay: float = Field(default=1e-6, ge=0, le=0.1)
    schedule: Literal["cosine", "steps"] = Field(
        default="cosine", description="steps: times 0.1 at 77.5%, 85% and 92.5% of the training"
    )
    sharpness_aware: SharpnessAware = Field(
        default=SharpnessAware(), description="minimise the largest loss near the weights; a step costs two passes"
    )
    crop_scale: float = Field(
        default=0.3,
        gt=0,
        le=1,
        description="smallest share of a picture's area, or of a text's words, that a crop keeps",
    )
    flip: float = Field(
        default=0.0, ge=0, le=1, description="probability of a mirrored view: 0 where sides matter, 0.5 elsewhere"
    )
    jitter: float = Field(default=0.4, ge=0, le=1, description="strength of the brightness, contrast and colour jitter")
    jitter_probability: float = Field(default=0.8, ge=0, le=1)
    grey: float = Field(default=0.2, ge=0, le=1, description="probability that a colour view becomes grey")
    word_dropout: float = Field(default=0.2, ge=0, lt=1, description="texts: probability that a view loses a word")
    word_buckets: int = Field(default=1 << 15, ge=1024, le=1 << 20, description="texts: hash buckets of words")
    word_features: int = Field(default=128, ge=8, le=1024, description="texts: length of the penultimate vectors")
    max_words: int = Field(default=256, ge=8, le=4096, description="texts: words that are read, from the start")

    @model_validator(mode="after")
    def _some_loss(self) -> Config:
        if self.align_weight == self.uniform_weight == self.contrastive_weight == 0:
            raise ValueError("align_weight, uniform_weight and contrastive_weight are all zero: nothing to learn from")
        if self.encoder == "small-alexnet" and self.image_size < 36:
            raise ValueError("image_size: small-alexnet needs pictures of at least 36 pixels")
        return self

    @property
    def learning_rate(self) -> float:
        """The initial learning rate."""
        if self.lr is not None:
            return self.lr
        return 3e-3 if self.optimizer == "adam" else 0.12 * self.batch_size / 256


PRESETS = {
    "cpu": Config(),
    "paper": Config(
        encoder="small-alexnet",
        image_size=64,
        feat_dim=128,
        epochs=200,
        batch_size=768,
        optimizer="sgd",
        weight_decay=1e-4,
        schedule="steps",
        crop_scale=0.08,
        flip=0.5,
        jitter_probability=1.0,
    ),
    "text": Config(epochs=3, feat_dim=128, lr=3e-4, word_buckets=8192, max_words=128),
}


class EmbeddingQuality(BaseModel):
    """Parameters of the job `embedding-quality`."""

    model_config = ConfigDict(extra="forbid")
    model: str | None = Field(
        default=None,
        description="any embedding model, `slug` or `slug@version`; unset: the job's model, else `align-uniform` for "
        "pictures, and vectors are measured as they are",
    )
    positives: Literal["auto", "augment", "consecutive", "class", "none"] = Field(
        default="auto",
        description="the positive pairs: two random views of each picture; rows 2i and 2i+1; two members of a class; "
        "none. auto: `augment` for pictures, else `class` where there are labels, else none",
    )
    alpha: float = Field(default=2.0, ge=0.5, le=4)
    t: float = Field(default=2.0, ge=0.1, le=16)
    max_samples: int = Field(
        default=4000, ge=16, le=20_000, description="a random sample of this size is measured; L_uniform depends on it"
    )
    neighbours: int = Field(default=10, ge=1, le=100, description="k of the hubness and of the k-NN accuracy")
    crop_scale: float = Field(default=0.3, gt=0, le=1, description="`augment`: smallest share that a crop keeps")
    jitter: float = Field(default=0.4, ge=0, le=1, description="`augment`: strength of the jitter")
    flip: float = Field(default=0.5, ge=0, le=1, description="`augment`: probability of a mirrored view")
    space: Space | None = Field(default=None, description="for a model that offers it; unset: the model's default")
