"""One input item of a request as a client writes it, turned into what the model takes.

Sizes are bounded before anything is decoded; nothing is ever fetched.
"""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from PIL import Image, UnidentifiedImageError
from pydantic import WithJsonSchema

from models.core.inputs import (
    ClassSpec,
    Float32,
    ImageSpec,
    InputError,
    InputSpec,
    SidesSpec,
    TextSpec,
    UInt8,
    VectorSpec,
    fit_image,
    fit_vector,
    picture_pixels,
)
from service.pictures import decode_small_png
from service.problems import FieldError, Problem
from service.settings import Settings

FORMATS = ("PNG", "JPEG", "WEBP")
MAX_ITEMS = 2048

_ITEM_SCHEMA = {
    "anyOf": [
        {"type": "string", "description": "a text, or a picture as data URL or base64 (PNG, JPEG, WebP)"},
        {"type": "array", "items": {"type": "number"}, "description": "a vector"},
        {
            "type": "object",
            "description": "a picture (`image`), an array (`array`) or a stored sample (`sample`)",
            "properties": {
                "type": {"enum": ["image", "array", "sample"]},
                "data": {},
                "range": {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2},
                "dataset": {"type": "string"},
                "index": {"type": "integer", "minimum": 0},
            },
            "required": ["type"],
        },
    ]
}
Items = Annotated[
    Any,
    WithJsonSchema(
        {"anyOf": [*_ITEM_SCHEMA["anyOf"], {"type": "array", "items": _ITEM_SCHEMA, "maxItems": MAX_ITEMS}]}
    ),
]
Item = Annotated[Any, WithJsonSchema(_ITEM_SCHEMA)]


@dataclass(frozen=True)
class SampleReference:
    """A stored sample, to be read from the data set."""

    dataset: str
    index: int


@dataclass(frozen=True)
class ItemLimits:
    """What one item may be at most."""

    pixels: int
    text_characters: int

    @classmethod
    def of(cls, settings: Settings) -> ItemLimits:
        """The limits that ``settings`` name."""
        return cls(settings.max_pixels, settings.max_text_characters)


def split_items(value: Any, spec: InputSpec, field: str = "/input") -> list[Any]:
    """The items of a request: one item, or a list of up to 2048.

    Raises:
        Problem: 422 for an empty or too long list.
    """
    single = not isinstance(value, list) or (
        spec.kind == "vector" and bool(value) and not isinstance(value[0], list | dict | str)
    )
    items = [value] if single else value
    if not items:
        raise Problem(422, "the list of inputs is empty", errors=[FieldError(field, "at least one item")], code="empty")
    if len(items) > MAX_ITEMS:
        detail = f"at most {MAX_ITEMS} items, not {len(items)}"
        raise Problem(422, "too many inputs", errors=[FieldError(field, detail)], code="too_many")
    return items


def parse_items(items: Sequence[Any], spec: InputSpec, limits: ItemLimits, field: str) -> list[Any]:
    """Convert ``items`` to the model's inputs.

    Raises:
        Problem: 422 naming every item that does not fit.
    """
    parsed, errors = [], []
    for position, item in enumerate(items):
        try:
            parsed.append(parse_item(item, spec, limits))
        except InputError as error:
            errors.append(FieldError(f"{field}/{position}" if len(items) > 1 else field, str(error)))
    if errors:
        raise Problem(422, "an input is not valid", errors=errors[:100], code="invalid_input")
    return parsed


def parse_item(item: Any, spec: InputSpec, limits: ItemLimits) -> UInt8 | Float32 | str | SampleReference:
    """Convert one item to what ``spec`` asks for.

    Raises:
        InputError: it is something else, malformed or too large.
    """
    if isinstance(item, dict) and item.get("type") == "sample":
        return _sample(item)
    match spec:
        case ImageSpec():
            return fit_image(_picture(item, limits), spec)
        case VectorSpec():
            return fit_vector(_numbers(item), spec)
        case TextSpec():
            return _text(item, min(spec.max_characters, limits.text_characters))
        case SidesSpec():
            raise InputError("this model compares two sides; use POST /v1/distances")
        case ClassSpec():
            raise InputError("this model generates; use POST /v1/images/generations")


def _sample(item: dict[str, Any]) -> SampleReference:
    if set(item) != {"type", "dataset", "index"}:
        raise InputError('a sample is {"type":"sample","dataset":"ds_...","index":17}')
    dataset, index = item["dataset"], item["index"]
    if not isinstance(dataset, str) or not isinstance(index, int) or isinstance(index, bool) or index < 0:
        raise InputError("a sample's dataset is a string and its index a number from 0")
    return SampleReference(dataset, index)


def _picture(item: Any, limits: ItemLimits) -> UInt8:
    if isinstance(item, str):
        return decode_picture(_from_base64(item), limits.pixels)
    if isinstance(item, dict):
        if item.get("type") == "image" and isinstance(item.get("data"), str):
            return decode_picture(_from_base64(item["data"]), limits.pixels)
        if item.get("type") == "array":
            return _array_picture(item, limits.pixels)
    raise InputError(
        'expected a picture: a data URL, base64, {"type":"image","data":"<base64>"} or {"type":"array","data":[[..]]}'
    )


def _from_base64(text: str) -> bytes:
    if text.startswith("data:"):
        head, comma, text = text.partition(",")
        if not comma or not head.endswith(";base64"):
            raise InputError("a data URL needs `;base64,`")
    elif text.startswith(("http://", "https://")):
        raise InputError("nothing is fetched from a URL: send the picture itself")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise InputError("not valid base64") from None


def decode_picture(raw: bytes, max_pixels: int) -> UInt8:
    """Decode PNG, JPEG or WebP to the pixels that it has in a data set, after checking its declared size.

    Raises:
        InputError: another format, damaged, or more than ``max_pixels``.
    """
    small = decode_small_png(raw, max_pixels)
    if small is not None:
        return small
    try:
        with Image.open(io.BytesIO(raw), formats=FORMATS) as picture:
            _check_size(picture, max_pixels)
            return picture_pixels(picture)
    except UnidentifiedImageError:
        raise InputError("not a PNG, JPEG or WebP picture") from None
    except InputError:
        raise
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise InputError(f"a damaged picture: {str(error)[:200]}") from None


def _check_size(picture: Image.Image, max_pixels: int) -> None:
    if picture.width * picture.height > max_pixels:
        raise InputError(f"{picture.width} x {picture.height} pixels are more than {max_pixels}")


def _array_picture(item: dict[str, Any], max_pixels: int) -> UInt8:
    if set(item) - {"type", "data", "range"}:
        raise InputError('an array is {"type":"array","data":[[..]],"range":[0,255]}')
    values = _array(item.get("data"))
    if values.ndim not in (2, 3) or (values.ndim == 3 and values.shape[2] not in (1, 3, 4)):
        raise InputError(f"an array picture is (height, width) or (height, width, 1|3|4), not {values.shape}")
    if values.shape[0] * values.shape[1] > max_pixels or 0 in values.shape:
        raise InputError(f"a picture of {values.shape} is empty or has more than {max_pixels} pixels")
    bounds = _array(item.get("range", [0, 255]))
    if bounds.shape != (2,) or not bounds[1] > bounds[0]:
        raise InputError("`range` is [lowest, highest]")
    if values.min() < bounds[0] or values.max() > bounds[1]:
        raise InputError(f"values from {values.min():g} to {values.max():g} leave the range {bounds.tolist()}")
    scaled = (values - bounds[0]) * (255.0 / (bounds[1] - bounds[0]))
    picture: UInt8 = np.round(scaled).astype(np.uint8)
    return picture


def _numbers(item: Any) -> Float32:
    if isinstance(item, dict) and item.get("type") == "array" and set(item) <= {"type", "data"}:
        item = item.get("data")
    if not isinstance(item, list):
        raise InputError("expected a vector: a list of numbers")
    return _array(item).astype(np.float32)


def _array(data: Any) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    try:
        values = np.asarray(data, dtype=np.float64)
    except (ValueError, TypeError, OverflowError):
        raise InputError("expected numbers in rows of equal length") from None
    if not isinstance(data, list) or not np.isfinite(values).all():
        raise InputError("expected finite numbers")
    return values


def _text(item: Any, limit: int) -> str:
    if not isinstance(item, str):
        raise InputError("expected a text")
    if len(item) > limit:
        raise InputError(f"{len(item)} characters are more than {limit}")
    return item
