"""Pictures in answers."""

from __future__ import annotations

import base64
import io

from PIL import Image

from models.core.inputs import UInt8


def encode_png(image: UInt8) -> str:
    """uint8 ``(H, W, 1|3)`` as base64 of a PNG; equal pixels give equal bytes."""
    encoded = io.BytesIO()
    Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).save(encoded, "PNG")
    return base64.b64encode(encoded.getvalue()).decode("ascii")
