"""How a file is to be read, and the limits within which it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from models.core.dataset import Dataset

Format = Literal["npz", "parquet", "csv", "jsonl", "zip", "tar.gz"]
SUFFIXES: dict[str, Format] = {
    ".npz": "npz",
    ".parquet": "parquet",
    ".csv": "csv",
    ".jsonl": "jsonl",
    ".zip": "zip",
    ".tar.gz": "tar.gz",
    ".tgz": "tar.gz",
}
Name = Annotated[str, Field(min_length=1, max_length=256)]


class DatasetOptions(BaseModel):
    """Which columns (or arrays of an npz file) hold what; what is left out is found by name and type."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    label: Name | None = Field(default=None, description="column of the class labels: integers, strings or booleans")
    image: Name | None = Field(default=None, description="column of pictures: encoded bytes, base64 or nested lists")
    text: Name | None = Field(default=None, description="column of texts")
    text_pair: Name | None = Field(default=None, description="column of the second texts; with it the kind is pairs")
    features: list[Name] | None = Field(
        default=None, min_length=1, max_length=100_000, description="numeric columns, or one column of lists of numbers"
    )
    id: Name | None = Field(default=None, description="column of the samples' identifiers")
    class_names: list[Name] | None = Field(
        default=None, min_length=1, max_length=100_000, description="names of the labels 0, 1, 2, ..."
    )

    @model_validator(mode="after")
    def _one_kind(self) -> DatasetOptions:
        chosen = [name for name in ("image", "text", "features") if getattr(self, name) is not None]
        if len(chosen) > 1:
            raise ValueError(f"give one of image, text and features, not {' and '.join(chosen)}")
        if self.text_pair is not None and self.text is None:
            raise ValueError("text_pair needs text, the column of the first texts")
        if self.class_names is not None and len(set(self.class_names)) < len(self.class_names):
            raise ValueError("class_names holds a name twice")
        return self


@dataclass(frozen=True)
class Limits:
    """What a file may cost before it is refused.

    Attributes:
        decompressed_bytes: of all content together, after decompression and picture decoding.
        pixels: of one picture.
        text_characters: of one text.
        samples: rows or pictures.
        members: entries of an archive.
        ratio: decompressed to compressed size of an archive's member (or of a whole tar.gz).
    """

    decompressed_bytes: int = 4 << 30
    pixels: int = 16_777_216
    text_characters: int = 200_000
    samples: int = 10_000_000
    members: int = 1_000_000
    ratio: int = 300


@dataclass(frozen=True)
class Parsed:
    """A read data set and what its owner should know about it."""

    dataset: Dataset
    warnings: list[str]
