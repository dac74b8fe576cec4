"""Parameters and configuration."""

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Params(BaseModel):
    """What a request may choose."""

    model_config = ConfigDict(extra="forbid")
    n: int = Field(default=1, ge=1, le=64, description="candidates returned")
    best_of: int = Field(default=4, ge=1, le=128, description="sentences looked at")
    max_tokens: int = Field(default=24, ge=4, le=64, description="words of a candidate at most")

    @model_validator(mode="after")
    def _enough(self):
        if self.best_of < self.n:
            raise ValueError("best_of: at least n")
        return self


class Config(BaseModel):
    """A training configuration."""

    model_config = ConfigDict(extra="forbid")
    steps: int = Field(default=200, ge=1, le=10_000, description="of gradient descent")


PRESETS = {"cpu": Config(), "paper": Config()}


def passes(n: int, params: Params) -> int:
    """Sentences looked at."""
    return n * params.best_of
