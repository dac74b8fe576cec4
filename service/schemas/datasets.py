"""Bodies of the data set routes."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from models.core.dataset import Kind
from models.core.datasets import DatasetOptions, DatasetRecord, Format


class DatasetAnswer(BaseModel):
    """A data set, as it was found in the file."""

    id: str
    object: Literal["dataset"] = "dataset"
    name: str
    kind: Kind
    samples: int
    shape: list[int] | None = Field(description="of one sample; null where samples differ, or are texts")
    classes: int = Field(description="number of classes; 0 without labels")
    class_names: list[str]
    bytes: int
    sha256: str
    created_at: float
    warnings: list[str]
    format: Format
    options: DatasetOptions

    @classmethod
    def of(cls, record: DatasetRecord) -> DatasetAnswer:
        """The answer for a stored record."""
        return cls.model_validate(record.model_dump(exclude={"owner"}))


class DatasetList(BaseModel):
    """Data sets, the newest first."""

    object: Literal["list"] = "list"
    data: list[DatasetAnswer]
    has_more: bool


class Thumbnail(BaseModel):
    """A small PNG of a picture; ``width`` and ``height`` are the picture's own."""

    data: str = Field(description="base64")
    media_type: Literal["image/png"] = "image/png"
    width: int
    height: int


class Sample(BaseModel):
    """One sample for a person to look at; only the field of its kind is there."""

    object: Literal["sample"] = "sample"
    index: int
    id: str
    label: str | None
    image: Thumbnail | None = None
    vector: list[float] | None = None
    text: str | None = None
    text_pair: str | None = None


class SampleList(BaseModel):
    """Samples in the order of the file."""

    object: Literal["list"] = "list"
    data: list[Sample]
    has_more: bool
