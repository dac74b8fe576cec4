from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Params(_Strict):
    pass


class Config(_Strict):
    epochs: int = Field(default=6, ge=1)
    pause: float = Field(default=0.0, ge=0, description="seconds an epoch")
    trace: str = ""


PRESETS = {"cpu": Config(), "paper": Config(epochs=20)}


class Steps(_Strict):
    steps: int = Field(default=10, ge=1)
    pause: float = 0.05
    trace: str = ""


class Native(_Strict):
    rounds: int = 40_000_000
    trace: str = ""


class Outcome(_Strict):
    how: Literal["user-error", "bug", "killed", "not-json", "no-dataset", "large-result"]
    trace: str = ""


class Talk(_Strict):
    lines: int = 400
    pause: float = 0.0


class Derive(_Strict):
    note: str = ""
