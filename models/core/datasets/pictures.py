"""Pictures as users store them, to uint8 arrays ``(height, width, channels)``."""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from models.core.datasets.errors import DatasetError
from models.core.datasets.options import Limits
from models.core.inputs import UInt8, picture_pixels

_FORMATS = ("PNG", "JPEG", "WEBP")


class PictureDecoder:
    """Decodes pictures one by one within the limits of a whole data set."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._left = limits.decompressed_bytes

    def decode(self, data: bytes) -> UInt8:
        """Decode PNG, JPEG or WebP to uint8 ``(h, w, 1|3|4)``, turned upright as its EXIF data says.

        Raises:
            DatasetError: not such a picture, damaged, or too large; size is checked before decoding.
        """
        try:
            with Image.open(io.BytesIO(data), formats=_FORMATS) as opened:
                self._admit(opened.width, opened.height)
                pixels = picture_pixels(opened)
        except Image.DecompressionBombError:
            raise DatasetError(f"the picture has more than {self._limits.pixels} pixels") from None
        except (OSError, SyntaxError, ValueError, EOFError) as error:
            if isinstance(error, DatasetError):
                raise
            reason = "it is damaged" if _looks_known(data) else "it is none of PNG, JPEG and WebP"
            raise DatasetError(f"the picture cannot be read: {reason}") from error
        self.charge(pixels.nbytes)
        return pixels

    def decode_value(self, value: Any) -> UInt8:
        """Decode one value of a column: bytes, ``{"bytes": ...}``, base64, a data URL, or nested lists of 0..255.

        Raises:
            DatasetError: as :meth:`decode`, or the value is none of these.
        """
        if isinstance(value, dict):
            value = value.get("bytes") or value.get("data")
        if isinstance(value, bytes):
            return self.decode(value)
        if isinstance(value, str):
            return self.decode(_from_base64(value))
        if isinstance(value, list):
            try:
                array = np.array(value)
            except ValueError:
                raise DatasetError("the picture's rows have different lengths") from None
            if array.ndim not in (2, 3) or array.size == 0 or array.dtype.kind not in "uif":
                raise DatasetError("a picture is a nested list of numbers: height, width and, if any, channels")
            self.charge(array.size)
            return scale_pictures(array[None], self._limits).reshape(*array.shape[:2], -1)
        raise DatasetError("the picture is missing")

    def charge(self, nbytes: int) -> None:
        """Count decoded bytes.

        Raises:
            DatasetError: the data set takes more than its limit in all.
        """
        self._left -= nbytes
        if self._left < 0:
            raise DatasetError(f"the data set takes more than {self._limits.decompressed_bytes} bytes decompressed")

    def _admit(self, width: int, height: int) -> None:
        if width * height > self._limits.pixels:
            raise DatasetError(f"the picture has {width} x {height} pixels, more than {self._limits.pixels}")


def scale_pictures(images: npt.NDArray[Any], limits: Limits) -> UInt8:
    """Bring ``(N, H, W)`` or ``(N, H, W, C)`` of booleans, integers 0..255 or floats 0..1 to uint8 with channels last.

    Raises:
        DatasetError: another shape or range, NaN or infinity; names the row where one is at fault.
    """
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or 0 in images.shape[1:]:
        raise DatasetError(f"pictures have shape (N, H, W) or (N, H, W, C), not {images.shape}")
    if images.shape[3] not in (1, 3, 4):
        raise DatasetError(f"pictures have 1, 3 or 4 channels on the last axis, not {images.shape[3]}")
    if images.shape[1] * images.shape[2] > limits.pixels:
        raise DatasetError(f"pictures have {images.shape[2]} x {images.shape[1]} pixels, more than {limits.pixels}")
    if images.dtype == np.uint8:
        return np.ascontiguousarray(images)
    kind = images.dtype.kind
    if kind not in "buif":
        raise DatasetError(f"pictures are uint8 or floats in 0..1, not {images.dtype}")
    high = 1.0 if kind in "bf" else 255.0
    scaled = np.empty(images.shape, dtype=np.uint8)
    rows = max(1, (32 << 20) // max(1, images[0].size)) if len(images) else 1
    for start in range(0, len(images), rows):
        part = images[start : start + rows].astype(np.float64)
        inside = (part >= 0) & (part <= high)  # NaN compares false
        if not inside.all():
            row = start + int(np.flatnonzero(~inside.all(axis=(1, 2, 3)))[0])
            raise DatasetError(f"a {images.dtype} picture has values outside 0..{high:g}, or NaN", row=row)
        scaled[start : start + rows] = np.rint(part * (255.0 / high))
    return scaled


def stack_pictures(pictures: Sequence[UInt8]) -> UInt8 | list[UInt8]:
    """One array ``(N, H, W, C)`` where all shapes are equal, otherwise the list."""
    if len({picture.shape for picture in pictures}) == 1:
        return np.stack(pictures)
    return list(pictures)


def _from_base64(value: str) -> bytes:
    encoded = value
    if value.startswith("data:"):
        head, comma, encoded = value.partition(",")
        if not comma or not head.endswith(";base64"):
            raise DatasetError("the data URL is not base64")
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        raise DatasetError("the picture is not valid base64") from None


def _looks_known(data: bytes) -> bool:
    return data.startswith((b"\x89PNG", b"\xff\xd8\xff")) or (data[:4] == b"RIFF" and data[8:12] == b"WEBP")
