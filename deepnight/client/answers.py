"""What the client returns."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

T = TypeVar("T")


def known(kind: type[T], answer: Mapping[str, Any], **given: Any) -> T:
    """A dataclass from an answer, without fields that this client does not know: a newer service may send them."""
    names = kind.__dataclass_fields__  # type: ignore[attr-defined]
    return kind(**{name: answer[name] for name in names if name in answer}, **given)


@dataclass(frozen=True)
class Dataset:
    """An uploaded data set; ``shape`` is that of one sample."""

    id: str
    name: str
    kind: Literal["images", "vectors", "text", "pairs"]
    samples: int
    shape: list[int] | None
    classes: int
    class_names: list[str]
    bytes: int
    sha256: str
    created_at: float
    warnings: list[str]
    format: str


@dataclass(frozen=True)
class Progress:
    """How far a job is: ``fraction`` in [0, 1]."""

    fraction: float = 0.0
    stage: str = ""
    message: str = ""
    eta_seconds: float | None = None


@dataclass(frozen=True)
class Artifact:
    """A file that a job made."""

    name: str
    media_type: str
    bytes: int
    sha256: str
    url: str


@dataclass(frozen=True)
class Job:
    """A queued job, as it was when it was asked for."""

    id: str
    kind: str
    model: str | None
    dataset: str | None
    parameters: dict[str, Any]
    status: Literal["queued", "running", "succeeded", "failed", "cancelled"]
    progress: Progress
    attempts: int
    created_at: float
    started_at: float | None
    finished_at: float | None
    error: dict[str, Any] | None
    log_tail: list[str]
    artifacts: list[Artifact]

    @property
    def final(self) -> bool:
        """Whether it has ended, however."""
        return self.status in ("succeeded", "failed", "cancelled")

    @classmethod
    def read(cls, answer: Mapping[str, Any]) -> Job:
        """The job of an answer."""
        return known(
            cls,
            {name: value for name, value in answer.items() if name not in ("progress", "artifacts")},
            progress=known(Progress, answer["progress"]),
            artifacts=[known(Artifact, artifact) for artifact in answer["artifacts"]],
        )


@dataclass(frozen=True)
class Event:
    """One event of a job: ``kind`` is progress, log, metric or status."""

    id: str
    kind: str
    data: dict[str, Any]


@dataclass(frozen=True)
class Model:
    """One version of a method. ``parameters`` is the JSON schema of the requests' parameters."""

    id: str
    slug: str
    version: str
    default: bool
    state: Literal["ready", "cold", "loading", "failed"]
    capability: str
    title: str
    description: str
    classes: list[str]
    parameters: dict[str, Any]
    presets: dict[str, dict[str, Any]]
    job_kinds: list[dict[str, Any]]
    figures: list[dict[str, Any]]


@dataclass(frozen=True)
class Classification:
    """The likeliest classes of one input, likeliest first, with their probabilities."""

    labels: list[str]
    scores: npt.NDArray[np.float64]

    @classmethod
    def read(cls, answer: Mapping[str, Any]) -> Classification:
        """One element of an answer's ``data``."""
        ranked = answer["labels"]
        return cls([row["label"] for row in ranked], np.array([row["score"] for row in ranked], dtype=np.float64))


@dataclass(frozen=True, eq=False)
class Coupling:
    """The non-zero entries of a transport plan."""

    rows: npt.NDArray[np.int64]
    columns: npt.NDArray[np.int64]
    mass: npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Distance:
    """A distance with the facts of its computation."""

    distance: float
    details: dict[str, Any]
    coupling: Coupling | None = None

    @classmethod
    def read(cls, answer: Mapping[str, Any]) -> Distance:
        """The distance of an answer."""
        plan = answer.get("coupling")
        coupling = plan and Coupling(
            np.array(plan["rows"], dtype=np.int64),
            np.array(plan["columns"], dtype=np.int64),
            np.array(plan["mass"], dtype=np.float64),
        )
        return cls(answer["distance"], answer["details"], coupling or None)


@dataclass(frozen=True, eq=False)
class Pictures:
    """Generated pictures.

    Attributes:
        images: uint8 ``(n, H, W, C)``.
        seeds: of each picture; the seed alone makes the same picture again.
        facts: what else the service says of each.
    """

    images: npt.NDArray[np.uint8]
    seeds: list[int]
    facts: list[dict[str, Any]]

    @classmethod
    def read(cls, answer: Mapping[str, Any]) -> Pictures:
        """The pictures of an answer."""
        data: Sequence[Mapping[str, Any]] = answer["data"]
        facts = [{name: value for name, value in item.items() if name not in ("b64_json", "seed")} for item in data]
        return cls(np.stack([_decode(item["b64_json"]) for item in data]), [item["seed"] for item in data], facts)


@dataclass(frozen=True)
class Candidate:
    """One summary of a text; ``facts`` holds what else the service says of it."""

    text: str
    reward: float
    logprob: float
    finish_reason: Literal["stop", "length"]
    facts: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, answer: Mapping[str, Any]) -> Candidate:
        """One candidate of an answer."""
        own = {"text", "reward", "logprob", "finish_reason"}
        return known(cls, answer, facts={name: value for name, value in answer.items() if name not in own})


def _decode(text: str) -> npt.NDArray[np.uint8]:
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(text))), dtype=np.uint8)
    return picture[:, :, None] if picture.ndim == 2 else picture
