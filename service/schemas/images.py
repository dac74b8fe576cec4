"""Request and answer of POST /v1/images/generations."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool

from service.schemas.inference import Model, Parameters

MAX_SEED = (1 << 63) - 1


class DrawParameters(BaseModel):
    """The parameters that every method of generation has beside its own."""

    model_config = ConfigDict(extra="ignore")
    class_label: int | str | None = Field(
        default=None, description="index or name of a class; without one, each picture's seed chooses its class"
    )
    unconditional: StrictBool = Field(default=False, description="draw without a class")
    seed: int | None = Field(
        default=None,
        ge=0,
        le=MAX_SEED,
        strict=True,
        description="of the first picture, the next one has the next seed; random by default. "
        "Seed, class and parameters determine a picture, alone or among others",
    )


class GenerationRequest(BaseModel):
    """OpenAI's shape; new top-level fields of theirs are ignored."""

    model_config = ConfigDict(extra="ignore")
    model: str = Model
    prompt: str | None = Field(default=None, max_length=4000, description="names a class; empty: `parameters` decide")
    n: int = Field(default=1, ge=1, le=64, strict=True, description="number of pictures")
    size: str | None = Field(default=None, max_length=32, description="`auto`, or the model's own `WIDTHxHEIGHT`")
    response_format: Literal["b64_json"] = "b64_json"
    output_format: Literal["png"] = "png"
    stream: StrictBool = Field(default=False, description="server-sent events: previews, then the pictures")
    partial_images: int = Field(default=0, ge=0, le=3, strict=True, description="previews of each picture at most")
    user: str | None = Field(default=None, max_length=512)
    parameters: dict[str, Any] = Parameters


class GeneratedImage(BaseModel):
    """One picture, with the facts that the method tells of it."""

    model_config = ConfigDict(extra="allow")
    b64_json: str = Field(description="base64 of a PNG")
    seed: int
    class_label: str | None


class TokenDetails(BaseModel):
    """OpenAI's split of the input; always zero here."""

    image_tokens: int
    text_tokens: int


class ImageUsage(BaseModel):
    """Pictures counted where OpenAI counts tokens."""

    input_tokens: int
    input_tokens_details: TokenDetails
    output_tokens: int
    total_tokens: int


class ImageList(BaseModel):
    """The pictures in the order of their seeds."""

    created: int
    model: str
    size: str
    output_format: Literal["png"]
    data: list[GeneratedImage]
    usage: ImageUsage
