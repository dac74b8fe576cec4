"""What a checkpoint takes: the specification of one input, and conversion of a user's data to it.

NumPy and Pillow only: the gateway converts with this module and never imports torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps
from pydantic import BaseModel, ConfigDict, Field

UInt8 = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]

_MODES = {"L": "L", "RGB": "RGB", "RGBA": "RGBA", "1": "L", "LA": "RGBA", "PA": "RGBA", "La": "RGBA", "RGBa": "RGBA"}


class InputError(ValueError):
    """One input does not fit the model; the message is shown to the user."""


class _Spec(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ImageSpec(_Spec):
    """Pictures as uint8 arrays of ``(height, width, channels)``."""

    kind: Literal["image"] = "image"
    height: int = Field(gt=0, le=4096)
    width: int = Field(gt=0, le=4096)
    channels: Literal[1, 3]
    fit: Literal["resize", "pad", "refuse"] = "resize"

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(height, width, channels)``."""
        return (self.height, self.width, self.channels)


class VectorSpec(_Spec):
    """Vectors of ``size`` float32 numbers."""

    kind: Literal["vector"] = "vector"
    size: int = Field(gt=0, le=1 << 20)


class TextSpec(_Spec):
    """Texts of at most ``max_characters`` characters."""

    kind: Literal["text"] = "text"
    max_characters: int = Field(default=100_000, gt=0)


class SidesSpec(_Spec):
    """Two point clouds or data sets that are compared."""

    kind: Literal["sides"] = "sides"


class ClassSpec(_Spec):
    """A class to generate, one of the checkpoint's ``class_names``, or none."""

    kind: Literal["class"] = "class"


InputSpec = Annotated[ImageSpec | VectorSpec | TextSpec | SidesSpec | ClassSpec, Field(discriminator="kind")]


def picture_pixels(picture: Image.Image) -> UInt8:
    """Pixels of an opened picture, uint8 ``(h, w, 1|3|4)``: upright by its EXIF data, 16-bit grey by its high byte.

    Raises:
        OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError: it is damaged.
    """
    upright = ImageOps.exif_transpose(picture)
    if upright.mode.startswith("I"):  # Pillow would clip 16 bits to white
        high: UInt8 = np.clip(np.asarray(upright, dtype=np.int64) >> 8, 0, 255).astype(np.uint8)
        return high[..., None]
    if upright.mode == "P":
        mode = "RGBA" if "transparency" in upright.info else "RGB"
    else:
        mode = _MODES.get(upright.mode, "RGB")
    pixels = np.asarray(upright.convert(mode), dtype=np.uint8)
    return pixels if pixels.ndim == 3 else pixels[..., None]


def fit_image(image: UInt8, spec: ImageSpec) -> UInt8:
    """Convert one picture ``(h, w)`` or ``(h, w, 1|3|4)`` uint8 to ``spec.shape``.

    Colour becomes grey by ITU-R 601 luma, grey becomes colour by repetition, alpha is laid on black.
    ``resize`` is bilinear with antialiasing and does not keep the aspect ratio; ``pad`` keeps it and
    fills with black.

    Raises:
        InputError: ``spec.fit`` is ``refuse`` and the size or the channel count differ.
    """
    if image.ndim == 2:
        image = image[:, :, None]
    if image.shape == spec.shape:
        return np.ascontiguousarray(image)
    if spec.fit == "refuse":
        raise InputError(f"expected a picture of shape {spec.shape}, got {image.shape}")
    picture = _to_mode(image, spec.channels)
    size = (spec.width, spec.height)
    if picture.size != size:
        if spec.fit == "pad":
            scale = min(spec.width / picture.width, spec.height / picture.height)
            inner = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
            canvas = Image.new(picture.mode, size)
            offset = ((spec.width - inner[0]) // 2, (spec.height - inner[1]) // 2)
            canvas.paste(picture.resize(inner, Image.Resampling.BILINEAR), offset)
            picture = canvas
        else:
            picture = picture.resize(size, Image.Resampling.BILINEAR)
    return np.asarray(picture, dtype=np.uint8).reshape(spec.shape)


def _to_mode(image: UInt8, channels: int) -> Image.Image:
    if image.shape[2] not in (1, 3, 4):
        raise InputError(f"a picture has 1, 3 or 4 channels, not {image.shape[2]}")
    picture = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
    if picture.mode == "RGBA":
        black = Image.new("RGBA", picture.size, (0, 0, 0, 255))
        picture = Image.alpha_composite(black, picture)
    return picture.convert("L" if channels == 1 else "RGB")


def fit_images(images: UInt8 | Sequence[UInt8], spec: ImageSpec) -> UInt8:
    """Convert pictures to one stacked uint8 array ``(N, height, width, channels)``.

    Raises:
        InputError: as :func:`fit_image`, naming the picture's position.
    """
    if isinstance(images, np.ndarray) and images.dtype == np.uint8:
        stacked = images[..., None] if images.ndim == 3 else images
        if stacked.ndim == 4 and stacked.shape[1:] == spec.shape:
            return np.ascontiguousarray(stacked)
    fitted = np.empty((len(images), *spec.shape), dtype=np.uint8)
    for position, image in enumerate(images):
        try:
            fitted[position] = fit_image(image, spec)
        except InputError as error:
            raise InputError(f"picture {position}: {error}") from error
    return fitted


def fit_vector(vector: npt.NDArray[np.generic], spec: VectorSpec) -> Float32:
    """Check one vector against ``spec`` and return it as finite float32 ``(size,)``.

    Raises:
        InputError: wrong length, not one-dimensional, or NaN or infinite values.
    """
    if vector.ndim != 1 or vector.shape[0] != spec.size:
        raise InputError(f"expected a vector of {spec.size} numbers, got shape {vector.shape}")
    converted = vector.astype(np.float32)
    if not np.isfinite(converted).all():
        raise InputError("the vector holds NaN or infinite values")
    return converted
