"""Items of requests: what is taken, what is refused, and that sizes are checked before anything is decoded."""

import base64
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from models.core.datasets.options import Limits
from models.core.datasets.pictures import PictureDecoder
from models.core.inputs import ImageSpec, InputError, TextSpec, VectorSpec
from service.inputs import ItemLimits, SampleReference, decode_picture, parse_item, parse_items, split_items
from service.problems import Problem

LIMITS = ItemLimits(pixels=10_000, text_characters=100)
GREY = ImageSpec(height=28, width=28, channels=1)
COLOUR = ImageSpec(height=8, width=8, channels=3)


def encode(array, kind="PNG", **options):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind, **options)
    return base64.b64encode(buffer.getvalue()).decode()


@pytest.fixture
def grey():
    return np.random.default_rng(0).integers(0, 256, (28, 28), dtype=np.uint8)


def test_png_arrives_bit_for_bit_in_every_spelling(grey):
    raw = encode(grey)
    for item in (raw, f"data:image/png;base64,{raw}", {"type": "image", "data": raw}):
        assert np.array_equal(parse_item(item, GREY, LIMITS)[:, :, 0], grey)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_lossy_formats_are_close(kind):
    smooth = np.add.outer(np.arange(28), np.arange(28)).astype(np.uint8) * 4
    assert np.abs(parse_item(encode(smooth, kind), GREY, LIMITS)[:, :, 0].astype(int) - smooth).mean() < 4


def test_array_is_scaled_from_its_range():
    item = {"type": "array", "data": [[0.0, 0.5], [1.0, 0.25]], "range": [0, 1]}
    spec = ImageSpec(height=2, width=2, channels=1)
    assert parse_item(item, spec, LIMITS)[:, :, 0].tolist() == [[0, 128], [255, 64]]


def test_colour_becomes_grey_and_grey_becomes_colour(grey):
    colour = np.stack([grey] * 3, axis=-1)
    assert np.abs(parse_item(encode(colour), GREY, LIMITS)[:, :, 0].astype(int) - grey).max() <= 1
    assert parse_item(encode(grey), COLOUR, LIMITS).shape == (8, 8, 3)


def test_alpha_lies_on_black():
    transparent = np.zeros((8, 8, 4), dtype=np.uint8)
    transparent[..., :3] = 200
    assert parse_item(encode(transparent), COLOUR, LIMITS).max() == 0


def stored(picture, kind="PNG", **options):
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def turned_a_quarter():
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif.tobytes()


@pytest.mark.parametrize(
    ("kind", "mode", "options"),
    [
        *(("PNG", mode, {}) for mode in ("L", "RGB", "RGBA", "P", "LA", "I;16", "1")),
        ("PNG", "P", {"transparency": 3}),
        *((kind, "RGB", {"exif": turned_a_quarter()}) for kind in ("PNG", "JPEG", "WEBP")),
        ("JPEG", "CMYK", {}),
    ],
)
def test_a_request_and_a_data_set_see_the_same_pixels(kind, mode, options):
    grey = np.add.outer(np.arange(20), 3 * np.arange(10)).astype(np.uint8)
    picture = Image.fromarray(grey.astype(np.uint16) * 300) if mode == "I;16" else Image.fromarray(grey).convert(mode)
    raw = stored(picture, kind, **options)
    pixels = decode_picture(raw, 10_000)
    assert np.array_equal(pixels, PictureDecoder(Limits()).decode(raw))
    assert pixels.shape[:2] == ((10, 20) if "exif" in options else (20, 10))


def test_16_bit_grey_is_scaled_and_not_clipped():
    wide = np.array([[0, 255, 256, 32768, 65535]], dtype=np.uint16)
    assert decode_picture(stored(Image.fromarray(wide)), 10_000).ravel().tolist() == [0, 0, 1, 128, 255]


def test_pixels_are_bounded_before_decoding():
    with pytest.raises(InputError, match="pixels"):
        parse_item(encode(np.zeros((200, 200), dtype=np.uint8)), GREY, LIMITS)


def test_truncated_picture_is_named_damaged(grey):
    raw = base64.b64decode(encode(grey))[:-40]
    with pytest.raises(InputError, match="damaged"):
        decode_picture(raw, 10_000)


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        ("https://example.org/a.png", "fetched"),
        ("not base64!", "base64"),
        ("data:image/png,abc", "base64"),
        (base64.b64encode(b"GIF89a plain").decode(), "PNG, JPEG or WebP"),
        (7, "expected a picture"),
        (None, "expected a picture"),
        ({"type": "image"}, "expected a picture"),
        ({"type": "array", "data": [[300]]}, "leave the range"),
        ({"type": "array", "data": [[1, 2], [3]]}, "equal length"),
        ({"type": "array", "data": [["a"]]}, "numbers"),
        ({"type": "array", "data": [[1]], "range": [1, 1]}, "lowest, highest"),
        ({"type": "sample", "dataset": "ds_1"}, "a sample is"),
        ({"type": "sample", "dataset": "ds_1", "index": -1}, "number from 0"),
    ],
)
def test_refused_pictures_say_why(item, reason):
    with pytest.raises(InputError, match=reason):
        parse_item(item, GREY, LIMITS)


def test_sample_references_are_kept_for_the_reader():
    assert parse_item({"type": "sample", "dataset": "ds_1", "index": 3}, GREY, LIMITS) == SampleReference("ds_1", 3)


def test_vectors():
    spec = VectorSpec(size=3)
    assert parse_item([1, 2, 3], spec, LIMITS).dtype == np.float32
    for item in ([1, 2], [1, 2, float("nan")], "abc", [1, 2, "x"], [[1, 2, 3]]):
        with pytest.raises(InputError):
            parse_item(item, spec, LIMITS)


def test_one_vector_is_one_item_and_a_list_of_vectors_many():
    assert len(split_items([1.0, 2.0, 3.0], VectorSpec(size=3))) == 1
    assert len(split_items([[1.0, 2.0, 3.0]] * 4, VectorSpec(size=3))) == 4


def test_texts_are_bounded():
    assert parse_item("a" * 100, TextSpec(), LIMITS) == "a" * 100
    with pytest.raises(InputError, match="characters"):
        parse_item("a" * 101, TextSpec(), LIMITS)


def test_every_bad_item_is_named(grey):
    with pytest.raises(Problem) as caught:
        parse_items([encode(grey), "x", encode(grey), 5], GREY, LIMITS, "/input")
    assert [error.field for error in caught.value.errors] == ["/input/1", "/input/3"]


@pytest.mark.parametrize(("value", "code"), [([], "empty"), (["a"] * 2049, "too_many")])
def test_list_lengths(value, code):
    with pytest.raises(Problem) as caught:
        split_items(value, TextSpec())
    assert caught.value.code == code


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["type", "data", "range"]), inner),
    max_leaves=8,
)


@settings(max_examples=400)
@given(item=JSON, spec=st.sampled_from([GREY, COLOUR, VectorSpec(size=2), TextSpec()]))
def test_any_json_is_taken_or_refused_with_a_reason(item, spec):
    try:
        parsed = parse_item(item, spec, LIMITS)
    except InputError as error:
        assert str(error)
    else:
        assert isinstance(parsed, np.ndarray | str | SampleReference)


@settings(max_examples=200)
@given(st.binary(max_size=200))
def test_random_bytes_never_crash_the_decoder(raw):
    with pytest.raises(InputError):
        decode_picture(b"\x89PNG\r\n\x1a\n" + raw, 10_000)
