"""Answers of the model routes."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from models.core.card import Capability, Paper
from models.core.figures import Figure, Figures


class ModelCard(BaseModel):
    """One version of a method."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    slug: str
    version: str
    default: bool
    state: Literal["ready", "cold", "loading", "failed"]
    capability: Capability
    title: str
    description: str
    use_when: str
    limits: str
    licence: str
    paper: Paper
    input: dict[str, Any]
    output: dict[str, Any]
    classes: list[str]
    parameters: dict[str, Any] = Field(description="JSON schema of `parameters` in requests")
    job_kinds: list[dict[str, Any]]
    presets: dict[str, dict[str, Any]]
    figures: list[Figure]


class ModelList(BaseModel):
    """The versions that the caller may use."""

    object: Literal["list"] = "list"
    data: list[ModelCard]
    has_more: bool


class ModelFigures(Figures):
    """Everything measured of one version."""

    object: Literal["figures"] = "figures"
    model: str


class DefaultRequest(BaseModel):
    """The version that the bare slug shall mean."""

    model_config = ConfigDict(extra="forbid")
    version: str = Field(min_length=1, max_length=63)
