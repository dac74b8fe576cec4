"""Contact sheets of pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from models.core.inputs import UInt8


def contact_sheet(pictures: UInt8, path: Path, columns: int = 8, zoom: int = 2) -> None:
    """Write uint8 ``(N, H, W, C)`` as one PNG, row by row, with a grey line between the pictures."""
    count, height, width, channels = pictures.shape
    rows = -(-count // columns)
    sheet = np.full((rows * (height + 1), columns * (width + 1), channels), 128, dtype=np.uint8)
    for position, picture in enumerate(pictures):
        top, left = position // columns * (height + 1), position % columns * (width + 1)
        sheet[top : top + height, left : left + width] = picture
    image = Image.fromarray(sheet[..., 0] if channels == 1 else sheet)
    image.resize((image.width * zoom, image.height * zoom), Image.Resampling.NEAREST).save(path)
