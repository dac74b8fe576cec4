"""Requests and answers of the routes that run a model at once."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from service.inputs import Items

_ROWS = {"type": "array", "items": {"type": "array", "items": {"type": "number"}}}
_NUMBERS = {"type": "array", "items": {"type": "number"}}
# Checked by NumPy in one pass; a Python object for each of a million numbers would be made twice otherwise.
Rows = Annotated[Any, WithJsonSchema(_ROWS)]
Numbers = Annotated[Any, WithJsonSchema(_NUMBERS)]

Model: Any = Field(description="`slug` for the default version, or `slug@version`", min_length=1, max_length=200)
Parameters: Any = Field(
    default={}, description="the method's own parameters; their schema stands in GET /v1/models/{id}"
)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _OpenAI(BaseModel):
    """OpenAI's clients send new top-level fields all the time."""

    model_config = ConfigDict(extra="ignore")


class EmbeddingRequest(_OpenAI):
    """OpenAI's shape, with pictures and vectors beside texts."""

    model: str = Model
    input: Items
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(default=None, ge=1, le=1 << 16)
    user: str | None = Field(default=None, max_length=512)
    parameters: dict[str, Any] = Parameters


class Embedding(BaseModel):
    """One embedding: numbers, or base64 of little-endian float32."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class Usage(BaseModel):
    """Inputs counted where OpenAI counts tokens."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingList(BaseModel):
    """The embeddings in the order of the inputs."""

    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: Usage


class ClassificationRequest(_Strict):
    """One or more inputs to classify."""

    model: str = Model
    input: Items
    top_k: int = Field(default=5, ge=1, le=10_000)
    parameters: dict[str, Any] = Parameters


class LabelScore(BaseModel):
    """A class and its probability."""

    label: str
    score: float


class Classification(BaseModel):
    """The likeliest classes of one input, likeliest first."""

    index: int
    labels: list[LabelScore]


class ClassificationList(BaseModel):
    """The classifications in the order of the inputs."""

    object: Literal["list"] = "list"
    data: list[Classification]
    model: str


class SideInput(_Strict):
    """One side of a distance: points inline, or a stored data set."""

    points: Rows = Field(default=None, description="n rows of d numbers")
    weights: Numbers = Field(default=None, description="n positive numbers; normalised to sum to one")
    labels: list[int | str] | None = Field(default=None, description="n labels")
    dataset: str | None = Field(default=None, description="id of a stored data set")


class DistanceRequest(_Strict):
    """Two sides to compare."""

    model: str = Model
    a: SideInput
    b: SideInput
    parameters: dict[str, Any] = Parameters
    return_coupling: bool = False
    cost_matrix: Rows = Field(default=None, description="n x m costs instead of the metric's")


class Coupling(BaseModel):
    """The non-zero entries of a transport plan."""

    rows: list[int]
    columns: list[int]
    mass: list[float]


class DistanceAnswer(BaseModel):
    """A distance with the facts of its computation."""

    object: Literal["distance"] = "distance"
    model: str
    distance: float
    details: dict[str, Any]
    coupling: Coupling | None = None
