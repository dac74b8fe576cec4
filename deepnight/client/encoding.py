"""Inputs of a Python program as the JSON that the service reads."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image

Input = str | Path | bytes | Image.Image | npt.NDArray[Any] | Sequence[float] | Mapping[str, Any]
Inputs = Input | Sequence[Input]


def items(inputs: Any) -> tuple[list[Any], bool]:
    """Inputs as JSON items, and whether it was a single one.

    A uint8 array of ``(N, H, W)`` or ``(N, H, W, 1|3)`` is N pictures, ``(H, W)`` one picture; a floating-point array
    of ``(N, D)`` is N vectors, ``(D,)`` one. A string is a text (or a data URL), a path a picture's file.

    Raises:
        TypeError: an input of another type.
    """
    if isinstance(inputs, np.ndarray):
        single = inputs.ndim == 2 if inputs.dtype == np.uint8 else inputs.ndim == 1
        return ([item(inputs)], True) if single else ([item(row) for row in inputs], False)
    if isinstance(inputs, (str, Path, bytes, Image.Image, Mapping)) or _is_vector(inputs):
        return [item(inputs)], True
    return [item(one) for one in inputs], False


def item(value: Any) -> Any:
    """One input as JSON.

    Raises:
        TypeError: it is none of the types of ``Input``.
    """
    if isinstance(value, (str, Mapping)):
        return value
    if isinstance(value, np.ndarray) and value.dtype != np.uint8:
        return value.astype(np.float64).tolist()
    if _is_vector(value):
        return [float(number) for number in value]
    return _data_url(_encoded(value))


def _encoded(picture: Any) -> bytes:
    """A picture as the bytes of a PNG, JPEG or WebP file."""
    if isinstance(picture, (bytes, Path)):
        return picture if isinstance(picture, bytes) else picture.read_bytes()
    if isinstance(picture, np.ndarray):
        picture = Image.fromarray(picture[:, :, 0] if picture.ndim == 3 and picture.shape[2] == 1 else picture)
    if not isinstance(picture, Image.Image):
        raise TypeError(f"an input is a text, a picture or a vector, not {type(picture).__name__}")
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def side(value: Any) -> dict[str, Any]:
    """One side of a distance: a data set or its id, an array of points ``(n, d)``, or a mapping with
    ``points``, ``weights`` and ``labels``.
    """
    if isinstance(value, str):
        return {"dataset": value}
    if isinstance(value, Mapping):
        return {name: part.tolist() if isinstance(part, np.ndarray) else part for name, part in value.items()}
    if isinstance(value, np.ndarray):
        return {"points": value.tolist()}
    if hasattr(value, "id"):
        return {"dataset": value.id}
    return {"points": value}


def npz(file: BinaryIO, inputs: npt.NDArray[Any], labels: Any, class_names: Sequence[str] | None) -> None:
    """Write pictures (uint8) or vectors, with their labels, as the npz file that the service takes."""
    arrays: dict[str, Any] = {"images" if inputs.dtype == np.uint8 else "x": inputs}
    if labels is not None:
        arrays["labels"] = np.asarray(labels)
    if class_names is not None:
        arrays["class_names"] = np.asarray(list(class_names), dtype=np.str_)
    np.savez(file, **arrays)


def jsonl(file: BinaryIO, inputs: Sequence[Any], labels: Any) -> None:
    """Write texts, or pairs of texts, with their labels, as JSON lines."""
    for position, value in enumerate(inputs):
        row: dict[str, str | int] = (
            {"text": value} if isinstance(value, str) else {"text": value[0], "text_pair": value[1]}
        )
        if labels is not None:
            row["label"] = labels[position] if isinstance(labels[position], str) else int(labels[position])
        file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")


def _is_vector(value: Any) -> bool:
    return (
        isinstance(value, Sequence)
        and not isinstance(value, bytes)
        and bool(value)
        and all(isinstance(n, (int, float)) for n in value)
    )


def _data_url(raw: bytes) -> str:
    kind = "jpeg" if raw[:2] == b"\xff\xd8" else "webp" if raw[8:12] == b"WEBP" else "png"
    return f"data:image/{kind};base64," + base64.b64encode(raw).decode("ascii")
