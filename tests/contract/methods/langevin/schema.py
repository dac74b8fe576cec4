"""Parameters and configuration."""

from pydantic import BaseModel, ConfigDict, Field


class Params(BaseModel):
    """What a request may choose."""

    model_config = ConfigDict(extra="forbid")
    steps: int = Field(default=100, ge=1, le=10_000_000, description="updates of a picture")


class Config(BaseModel):
    """A training configuration."""

    model_config = ConfigDict(extra="forbid")


PRESETS = {"cpu": Config(), "paper": Config()}


def passes(n: int, params: Params) -> int:
    """Updates that ``n`` pictures need."""
    return n * params.steps
