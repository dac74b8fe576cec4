"""Bodies of the summary routes."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictInt, WithJsonSchema

from models.core.feedback import Comparison
from service.schemas.inference import Model, Parameters

MAX_TEXTS = 64
TEXT_LIMIT = 200_000
_TEXT = {"anyOf": [{"type": "string"}, {"type": "object", "description": "a stored sample (`sample`)"}]}
Texts = Annotated[
    Any, WithJsonSchema({"anyOf": [*_TEXT["anyOf"], {"type": "array", "items": _TEXT, "maxItems": MAX_TEXTS}]})
]


class SummaryRequest(BaseModel):
    """One or more texts to summarise; fields that are left out take the method's defaults."""

    model_config = ConfigDict(extra="forbid")
    model: str = Model
    input: Texts
    n: StrictInt | None = Field(default=None, description="candidates returned for each text")
    best_of: StrictInt | None = Field(default=None, description="candidates drawn, of which the best are returned")
    max_tokens: StrictInt | None = Field(default=None, description="length of a candidate at most")
    temperature: float | None = Field(default=None, description="0 always takes the likeliest token")
    parameters: dict[str, Any] = Parameters


class SummaryCandidate(BaseModel):
    """A summary, with the facts that the method tells of it."""

    model_config = ConfigDict(extra="allow")
    text: str
    reward: float
    logprob: float
    finish_reason: Literal["stop", "length"]


class SummaryOfText(BaseModel):
    """The candidates for one text, the best first."""

    index: int
    candidates: list[SummaryCandidate]
    truncated_input: bool = Field(description="the text was longer than what the model reads")


class TokenUsage(BaseModel):
    """Tokens read and written, over all candidates that were drawn."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class SummaryList(BaseModel):
    """The summaries in the order of the texts."""

    object: Literal["list"] = "list"
    data: list[SummaryOfText]
    model: str
    usage: TokenUsage


Text = Annotated[str, Field(max_length=TEXT_LIMIT)]


class ComparisonRequest(BaseModel):
    """Which of two summaries of a text somebody prefers."""

    model_config = ConfigDict(extra="forbid")
    input: Text
    candidates: tuple[Text, Text]
    preferred: StrictInt = Field(ge=0, le=1, description="position in `candidates`")
    annotator: str | None = Field(default=None, min_length=1, max_length=200)
    confidence: StrictInt | None = Field(default=None, ge=1, le=9)
    model: str | None = Field(default=None, min_length=1, max_length=200, description="that wrote the candidates")
    shown_first: StrictInt | None = Field(default=None, ge=0, le=1, description="position in `candidates`")


class ComparisonAnswer(Comparison):
    """A comparison that is kept."""

    object: Literal["comparison"] = "comparison"
