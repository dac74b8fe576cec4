"""NumPy archives: what is taken, what is refused, and that nothing is unpickled."""

import errno
import io
import tracemalloc
import zipfile

import numpy as np
import pytest

from models.core.datasets import DatasetError, Limits, npz
from models.core.store import StoreFullError

RNG = np.random.default_rng(0)
PICTURES = RNG.integers(0, 256, (6, 4, 5, 3), dtype=np.uint8)
LABELS = np.array([0, 1, 0, 1, 2, 2])


@pytest.fixture
def save(tmp_path):
    def write(**arrays):
        np.savez(tmp_path / "a.npz", **arrays)
        return tmp_path / "a.npz"

    return write


@pytest.mark.parametrize(("images", "labels"), [("images", "labels"), ("x", "y"), ("X", "Y")])
def test_usual_names(save, read, images, labels):
    dataset = read(save(**{images: PICTURES, labels: LABELS})).dataset
    assert np.array_equal(dataset.inputs, PICTURES)
    assert dataset.labels.tolist() == LABELS.tolist()
    assert dataset.class_names == ["0", "1", "2"]


def test_named_arrays(save, read):
    path = save(a=PICTURES, b=LABELS, c=LABELS)
    parsed = read(path, image="a", label="b")
    assert parsed.dataset.labels.tolist() == LABELS.tolist()
    assert "arrays not used: 'c'" in parsed.warnings


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_floats_in_0_to_1_become_bytes(save, read, dtype):
    dataset = read(save(x=(PICTURES / 255).astype(dtype))).dataset
    assert dataset.inputs.dtype == np.uint8
    assert np.abs(dataset.inputs.astype(int) - PICTURES).max() <= (1 if dtype == np.float16 else 0)


def test_integers_in_0_to_255_and_booleans_become_bytes(save, read):
    assert np.array_equal(read(save(x=PICTURES.astype(np.int64))).dataset.inputs, PICTURES)
    assert read(save(x=np.array([[[True, False]]]))).dataset.inputs.ravel().tolist() == [255, 0]


def test_grey_pictures_get_a_channel_axis_and_channels_first_are_turned(save, read):
    assert read(save(x=PICTURES[..., 0])).dataset.inputs.shape == (6, 4, 5, 1)
    parsed = read(save(x=np.moveaxis(PICTURES, 3, 1)))
    assert np.array_equal(parsed.dataset.inputs, PICTURES)
    assert any("channels first" in warning for warning in parsed.warnings)


@pytest.mark.parametrize(
    ("labels", "names", "indices"),
    [
        (np.array(["b", "a", "b", "a", "c", "c"]), ["a", "b", "c"], [1, 0, 1, 0, 2, 2]),
        (np.array([b"b", b"a", b"b", b"a", b"c", b"c"]), ["a", "b", "c"], [1, 0, 1, 0, 2, 2]),
        (np.array([10, 9, 10, 9, -1, -1]), ["-1", "9", "10"], [2, 1, 2, 1, 0, 0]),
        (np.array([[1], [0], [1], [0], [1], [0]]), ["0", "1"], [1, 0, 1, 0, 1, 0]),
        (np.array([1.0, 0.0, 1.0, 0.0, 1.0, 0.0]), ["0", "1"], [1, 0, 1, 0, 1, 0]),
        (np.array([True, False, True, False, True, False]), ["false", "true"], [1, 0, 1, 0, 1, 0]),
    ],
)
def test_labels_of_every_type(save, read, labels, names, indices):
    dataset = read(save(x=PICTURES, y=labels)).dataset
    assert dataset.class_names == names
    assert dataset.labels.tolist() == indices
    assert dataset.labels.dtype == np.int64


def test_class_names_come_from_the_archive_or_the_options(save, read):
    path = save(x=PICTURES, y=LABELS, class_names=np.array(["cat", "dog", "eel", "fox"]))
    assert read(path).dataset.class_names == ["cat", "dog", "eel", "fox"]
    assert read(path, class_names=["u", "v", "w"]).dataset.class_names == ["u", "v", "w"]


def test_vectors_and_texts(save, read):
    vectors = RNG.normal(size=(6, 3))
    dataset = read(save(x=vectors, y=LABELS)).dataset
    assert dataset.kind == "vectors"
    assert np.array_equal(dataset.inputs, vectors.astype(np.float32))
    assert read(save(texts=np.array(["ä", "b"]))).dataset.inputs == ["ä", "b"]


@pytest.mark.parametrize(
    ("arrays", "row", "reason"),
    [
        ({"x": np.where(np.arange(6)[:, None] == 4, np.nan, 1.0) * np.ones((6, 3))}, 4, "NaN"),
        ({"x": np.where(np.arange(6)[:, None] == 2, 1e300, 1.0) * np.ones((6, 3))}, 2, "too large for float32"),
        ({"x": np.where(np.arange(6)[:, None, None] == 3, np.nan, 0.5) * np.ones((6, 4, 5))}, 3, "NaN"),
        ({"x": np.where(np.arange(6)[:, None, None] == 5, 1.5, 0.5) * np.ones((6, 4, 5))}, 5, "outside 0..1"),
        ({"x": np.where(np.arange(6)[:, None, None] == 1, 256, 5) * np.ones((6, 4, 5), int)}, 1, "outside 0..255"),
        ({"x": PICTURES, "y": np.array([0, 1, 0.5, 1, 2, 2])}, 2, "not a class"),
        ({"x": PICTURES, "y": np.array(["a", "b", "", "a", "a", "a"])}, 2, "missing"),
        ({"x": PICTURES, "y": LABELS, "class_names": np.array(["a", "b"])}, 4, "not in 0..1"),
        ({"x": PICTURES, "y": LABELS[:5]}, None, "5 rows, the inputs have 6"),
        ({"x": PICTURES, "y": np.eye(6)}, None, "one value a row"),
        ({"x": PICTURES[..., :2]}, None, "1, 3 or 4 channels"),
        ({"x": np.zeros((0, 4, 5), np.uint8)}, None, "empty"),
        ({"x": np.zeros(5)}, None, "neither pictures"),
        ({"z": PICTURES}, None, "no array 'images' or 'x'"),
    ],
)
def test_what_is_wrong_is_named_with_its_row(save, read, arrays, row, reason):
    with pytest.raises(DatasetError, match=reason) as caught:
        read(save(**arrays))
    assert caught.value.row == row
    assert row is None or str(caught.value).startswith(f"row {row}: ")


class Bomb:
    exploded = False

    def __reduce__(self):
        return (setattr, (Bomb, "exploded", True))


@pytest.mark.parametrize("name", ["x", "y", "unused"])
def test_pickled_objects_are_refused_wherever_they_are(tmp_path, read, name):
    arrays = {"x": PICTURES, "y": LABELS, name: np.array([Bomb()] * 6, dtype=object)}
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DatasetError, match="pickled") as caught:
        read(tmp_path / "a.npz")
    assert caught.value.member == f"{name}.npy"
    assert not Bomb.exploded


def test_a_header_that_claims_more_than_there_is_takes_no_memory(tmp_path, read):
    raw = io.BytesIO()
    np.lib.format.write_array_header_1_0(raw, {"descr": "|u1", "fortran_order": False, "shape": (1 << 50, 28, 28)})
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("x.npy", raw.getvalue() + b"\0" * 100)
    with pytest.raises(DatasetError, match="size is not the one") as caught:
        read(tmp_path / "a.npz")
    assert caught.value.member == "x.npy"


def test_decompressed_size_is_limited_before_anything_is_read(tmp_path, read):
    np.savez_compressed(tmp_path / "a.npz", x=np.zeros((1000, 100, 100), np.uint8))
    assert (tmp_path / "a.npz").stat().st_size < 20_000
    with pytest.raises(DatasetError, match="decompressed") as caught:
        read(tmp_path / "a.npz", Limits(decompressed_bytes=1_000_000))
    assert caught.value.member == "x.npy"


def test_damaged_archives(tmp_path, save, read):
    path = save(x=PICTURES)
    raw = bytearray(path.read_bytes())
    (tmp_path / "cut.npz").write_bytes(raw[:200])
    with pytest.raises(DatasetError, match="not an npz"):
        read(tmp_path / "cut.npz")
    raw[raw.index(PICTURES.tobytes()[:50])] ^= 1
    (tmp_path / "flipped.npz").write_bytes(raw)
    with pytest.raises(DatasetError, match="damaged") as caught:
        read(tmp_path / "flipped.npz")
    assert caught.value.member == "x.npy"


def test_options_that_do_not_fit(save, read):
    for options, field in [
        ({"label": "nope"}, "/options/label"),
        ({"image": "nope"}, "/options/image"),
        ({"text": "x", "text_pair": "x"}, "/options/text_pair"),
        ({"features": ["x", "x2"]}, "/options/features"),
    ]:
        with pytest.raises(DatasetError) as caught:
            read(save(x=PICTURES), **options)
        assert caught.value.field == field


@pytest.fixture
def mapped(monkeypatch):
    """Every array is a large one."""
    monkeypatch.setattr(npz, "MAPPED_BYTES", 0)


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("order", ["C", "F"])
def test_a_large_array_is_the_same_and_can_be_written_to(mapped, read, tmp_path, write, order):
    write(tmp_path / "a.npz", images=np.asarray(PICTURES, order=order), labels=LABELS)
    before = (tmp_path / "a.npz").read_bytes()
    dataset = read(tmp_path / "a.npz").dataset
    assert np.array_equal(dataset.inputs, PICTURES)
    assert dataset.labels.tolist() == LABELS.tolist()
    dataset.inputs[0] = 7
    assert (tmp_path / "a.npz").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.npz"]


def test_a_damaged_large_array_is_refused(mapped, save, read):
    path = save(x=PICTURES)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(DatasetError, match="damaged"):
        read(path)


def test_no_room_for_a_large_array_is_a_full_store(mapped, save, read, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "no space")

    path = save(x=PICTURES)
    monkeypatch.setattr(npz.shutil, "copyfileobj", full)
    with pytest.raises(StoreFullError):
        read(path)


def test_a_large_array_costs_no_memory(save, read):
    pictures = np.zeros((100_000, 28, 28), dtype=np.uint8)
    assert pictures.nbytes > npz.MAPPED_BYTES
    path = save(x=pictures)
    tracemalloc.start()
    try:
        assert len(read(path).dataset) == len(pictures)
        assert tracemalloc.get_traced_memory()[1] < pictures.nbytes / 8
    finally:
        tracemalloc.stop()
