"""The fast way into small PNGs: the same pixels as Pillow's, and nothing that Pillow refuses."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from service.pictures import SMALL_BYTES, decode_small_png

PIXELS = 1 << 20


def encode(array, **options):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG", **options)
    return buffer.getvalue()


def by_pillow(raw):
    return np.asarray(Image.open(io.BytesIO(raw)))


def chunks(raw):
    at = 8
    while at + 12 <= len(raw):
        length = int.from_bytes(raw[at : at + 4])
        yield raw[at + 4 : at + 8], raw[at + 8 : at + 8 + length]
        at += 12 + length


def put_together(parts):
    """A PNG of chunks, whose checksums are right."""
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + zlib.crc32(kind + data).to_bytes(4) for kind, data in parts
    )
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize("shape", [(1, 1), (28, 28), (5, 301), (28, 28, 3), (64, 33, 3)])
def test_grey_and_colour_are_bit_for_bit_as_they_were(shape):
    rng = np.random.default_rng(0)
    for array in (rng.integers(0, 256, shape, dtype=np.uint8), np.full(shape, 7, np.uint8)):
        pixels = decode_small_png(encode(array), PIXELS)
        assert pixels.dtype == np.uint8
        assert pixels.shape == (*shape[:2], 3 if len(shape) == 3 else 1)
        assert np.array_equal(pixels.reshape(shape), array)


def test_others_are_left_to_pillow():
    grey = np.arange(100, dtype=np.uint8).reshape(10, 10)
    noise = np.random.default_rng(0).integers(0, 256, (300, 300), dtype=np.uint8)
    assert len(encode(noise)) > SMALL_BYTES
    jpeg = io.BytesIO()
    Image.fromarray(grey).save(jpeg, "JPEG")
    palette = io.BytesIO()
    Image.fromarray(grey).convert("P").save(palette, "PNG")
    alpha = encode(np.zeros((4, 4, 4), np.uint8))
    deep = encode(grey.astype(np.uint16) * 257)
    for raw in (encode(noise), jpeg.getvalue(), palette.getvalue(), alpha, deep, b""):
        assert decode_small_png(raw, PIXELS) is None
    assert decode_small_png(encode(grey), 99) is None


def test_data_behind_right_checksums_of_the_chunks_is_looked_at():
    raw = encode(np.arange(100, dtype=np.uint8).reshape(10, 10))
    found = list(chunks(raw))
    position = [kind for kind, _ in found].index(b"IDAT")
    data = found[position][1]
    for wrong in (data[:-1], data[:-1] + bytes([data[-1] ^ 1]), data[: len(data) // 2], zlib.compress(bytes(50))):
        parts = [*found[:position], (b"IDAT", wrong), *found[position + 1 :]]
        assert decode_small_png(put_together(parts), PIXELS) is None
    split = [*found[:position], (b"IDAT", data[:9]), (b"IDAT", data[9:]), *found[position + 1 :]]
    assert np.array_equal(decode_small_png(put_together(split), PIXELS)[:, :, 0], by_pillow(raw))


def test_what_it_takes_pillow_takes():
    rng = np.random.default_rng(0)
    bases = [encode(rng.integers(0, 256, shape, dtype=np.uint8)) for shape in ((9, 12), (6, 6, 3))]
    taken = 0
    for turn in range(4000):
        raw = bytearray(bases[turn % 2])
        for _ in range(rng.integers(1, 4)):
            raw[rng.integers(8, len(raw))] = rng.integers(256)
        mended = put_together(chunks(bytes(raw))) if turn % 4 > 1 else bytes(raw)
        pixels = decode_small_png(mended, PIXELS)
        if pixels is not None:
            taken += 1
            assert np.array_equal(pixels.squeeze(), by_pillow(mended))
    assert taken
