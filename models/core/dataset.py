"""A data set in memory, as methods see it, whatever file it came in."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import numpy as np

from models.core.inputs import Float32, ImageSpec, InputError, Int64, UInt8, fit_images

Kind = Literal["images", "vectors", "text", "pairs"]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Samples with optional labels.

    Attributes:
        kind: what :attr:`inputs` holds.
        inputs: ``images``: uint8 ``(N, H, W, C)``, or a list of uint8 ``(h, w, C)`` when sizes differ;
            ``vectors``: float32 ``(N, D)``; ``text``: a list of strings; ``pairs``: a list of
            ``(text, text)``.
        labels: int64 ``(N,)`` indices into :attr:`class_names`, or None.
        class_names: the user's own names, in the order of the indices.
        sample_ids: the user's identifiers (row numbers, member names); positions when None.
        name: what the user called it.
    """

    kind: Kind
    inputs: UInt8 | Float32 | Sequence[UInt8] | Sequence[str] | Sequence[tuple[str, str]]
    labels: Int64 | None = None
    class_names: list[str] = field(default_factory=list)
    sample_ids: list[str] | None = None
    name: str = ""

    def __len__(self) -> int:
        return len(self.inputs)

    def require_kind(self, kind: Kind) -> None:
        """Check what the data set holds.

        Raises:
            InputError: it holds something else.
        """
        if self.kind != kind:
            raise InputError(f"the data set holds {self.kind}, not {kind}")

    def images(self, spec: ImageSpec) -> UInt8:
        """All pictures fitted to ``spec``: uint8 ``(N, H, W, C)``.

        Raises:
            InputError: the data set holds no pictures, or one does not fit.
        """
        self.require_kind("images")
        return fit_images(self.inputs, spec)  # type: ignore[arg-type]

    def vectors(self) -> Float32:
        """Float32 ``(N, D)``.

        Raises:
            InputError: the data set holds no vectors.
        """
        self.require_kind("vectors")
        return np.asarray(self.inputs, dtype=np.float32)

    def texts(self) -> list[str]:
        """The N strings.

        Raises:
            InputError: the data set holds no text.
        """
        self.require_kind("text")
        return [str(text) for text in self.inputs]

    def require_labels(self) -> Int64:
        """The labels.

        Raises:
            InputError: the data set has none.
        """
        if self.labels is None:
            raise InputError("the data set has no labels")
        return self.labels

    def select(self, indices: Int64 | Sequence[int]) -> Dataset:
        """The samples at ``indices``, in that order, with all class names kept."""
        chosen = np.asarray(indices, dtype=np.int64)
        return replace(
            self,
            inputs=self.inputs[chosen] if isinstance(self.inputs, np.ndarray) else [self.inputs[i] for i in chosen],
            labels=None if self.labels is None else self.labels[chosen],
            sample_ids=None if self.sample_ids is None else [self.sample_ids[i] for i in chosen],
        )

    @cached_property
    def sha256(self) -> str:
        """Hash of the content (inputs and labels), independent of the file format."""
        digest = hashlib.sha256(self.kind.encode())
        if isinstance(self.inputs, np.ndarray):
            digest.update(str((self.inputs.dtype, self.inputs.shape)).encode())
            digest.update(np.ascontiguousarray(self.inputs).data)
        else:
            for item in self.inputs:
                raw = item.tobytes() if isinstance(item, np.ndarray) else repr(item).encode()
                digest.update(len(raw).to_bytes(8, "little") + raw)
        if self.labels is not None:
            digest.update(self.labels.tobytes() + "\0".join(self.class_names).encode())
        return digest.hexdigest()
