"""Zip and tar.gz: class folders, and every way in which an archive can lie."""

import gzip
import io
import struct
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from models.core.datasets import DatasetError, Limits
from tests.unit.datasets.conftest import png

CATS_AND_DOGS = [("pets/cat/1.png", png(seed=1)), ("pets/dog/2.PNG", png(seed=2)), ("pets/cat/3.png", png(seed=3))]


@pytest.fixture(params=["zip", "tar"])
def archive(request, write_zip, write_tar):
    return write_zip if request.param == "zip" else write_tar


def refused(read, path, limits=None):
    with pytest.raises(DatasetError) as caught:
        read(path, limits)
    return caught.value


def test_the_folder_of_a_picture_is_its_class(archive, read):
    dataset = read(archive(CATS_AND_DOGS)).dataset
    assert dataset.class_names == ["cat", "dog"]
    assert dataset.labels.tolist() == [0, 1, 0]
    assert dataset.sample_ids == [name for name, _ in CATS_AND_DOGS]
    assert dataset.inputs.shape == (3, 4, 5, 3)


def test_litter_of_operating_systems_is_passed_over(archive, read):
    litter = [("__MACOSX/pets/cat/._1.png", b"x"), ("pets/.DS_Store", b"x"), ("pets/cat/.hidden.png", b"x")]
    assert len(read(archive([*CATS_AND_DOGS, *litter])).dataset) == 3


def test_pictures_without_folders_have_no_labels(archive, read):
    dataset = read(archive([("1.png", png()), ("2.png", png())])).dataset
    assert dataset.labels is None
    error = refused(read, archive([*CATS_AND_DOGS, ("4.png", png())]))
    assert error.member == "4.png"
    assert "no class folder" in str(error)


def test_sizes_and_modes_differ(archive, read):
    members = [
        ("a/1.png", png((4, 5, 3))),
        ("a/2.jpg", png((8, 6, 3), encoding="JPEG")),
        ("a/3.webp", png((3, 3, 3), encoding="WEBP")),
    ]
    parsed = read(archive([*members, ("b/4.png", png((4, 4))), ("b/5.png", png((4, 4, 4)))]))
    assert [np.shape(picture) for picture in parsed.dataset.inputs] == [
        (4, 5, 3), (8, 6, 3), (3, 3, 3), (4, 4, 1), (4, 4, 4),
    ]  # fmt: skip
    assert any("5 different shapes" in warning for warning in parsed.warnings)


def test_palette_transparency_16_bit_and_orientation(write_zip, read):
    def encode(picture, **options):
        encoded = io.BytesIO()
        picture.save(encoded, options.pop("format", "PNG"), **options)
        return encoded.getvalue()

    palette = Image.new("P", (2, 1))
    palette.putpalette([10, 20, 30, 40, 50, 60])
    palette.putpixel((1, 0), 1)
    wide = Image.fromarray(np.array([[0, 65535, 32768]], dtype=np.uint16))
    turned = Image.fromarray(np.arange(6, dtype=np.uint8).reshape(2, 3))
    exif = Image.Exif()
    exif[0x0112] = 6  # stored rotated: the picture is 3 high and 2 wide
    path = write_zip(
        [
            ("a/palette.png", encode(palette)),
            ("a/clear.png", encode(palette, transparency=0)),
            ("a/wide.png", encode(wide)),
            ("a/turned.webp", encode(turned.convert("RGB"), format="WEBP", exif=exif.tobytes(), lossless=True)),
        ]
    )
    pictures = read(path).dataset.inputs
    assert pictures[0].tolist() == [[[10, 20, 30], [40, 50, 60]]]
    assert pictures[1][0, :, 3].tolist() == [0, 255]
    assert pictures[2].ravel().tolist() == [0, 255, 128]
    assert pictures[3].shape == (3, 2, 3)
    assert pictures[3][:, :, 0].tolist() == [[3, 0], [4, 1], [5, 2]]


@pytest.mark.parametrize(
    "name",
    [
        "/etc/cat/1.png",
        "../cat/1.png",
        "a/../../cat/1.png",
        "C:/cat/1.png",
        "a/c\nat/1.png",
        "a/" + "b" * 2000 + "/1.png",
    ],
)
def test_names_that_leave_their_folder_are_refused(archive, read, name, tmp_path):
    before = sorted(tmp_path.parent.rglob("*"))
    error = refused(read, archive([*CATS_AND_DOGS, (name, png())]))
    assert error.member == name[:1024]
    assert len(sorted(tmp_path.parent.rglob("*"))) == len(before) + 1  # the archive itself


def test_backslashes_in_tar_names_are_refused(write_tar, read):
    assert refused(read, write_tar([("a\\..\\..\\1.png", png())])).member == "a\\..\\..\\1.png"


def test_a_name_that_is_there_twice_is_refused(archive, read, recwarn):
    assert "twice" in str(refused(read, archive([("a/1.png", png()), ("a/1.png", png(seed=1))])))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_tar_are_refused(write_tar, read, kind):
    info = tarfile.TarInfo("a/link.png")
    info.type, info.linkname = kind, "/etc/passwd"
    error = refused(read, write_tar([*CATS_AND_DOGS, (info, b"")]))
    assert error.member == "a/link.png"
    assert "links" in str(error)


def test_links_and_encryption_in_zip_are_refused(write_zip, read):
    link = zipfile.ZipInfo("a/link.png")
    link.create_system, link.external_attr = 3, 0o120777 << 16
    assert "links" in str(refused(read, write_zip([*CATS_AND_DOGS, (link, "/etc/passwd")])))
    path = write_zip([("a/1.png", png())])
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"PK\x01\x02") + 8] |= 1  # the flag in the central directory
    path.write_bytes(raw)
    assert "encrypted" in str(refused(read, path))


def test_zip_bombs_are_refused_by_what_they_declare(write_zip, read):
    zeros = b"\0" * (8 << 20)
    path = write_zip([*CATS_AND_DOGS, ("a/zeros.png", zeros)], compression=zipfile.ZIP_DEFLATED)
    error = refused(read, path)
    assert error.member == "a/zeros.png"
    assert "times its size" in str(error)
    many = write_zip([(f"a/{i}.png", zeros[: 1 << 20]) for i in range(40)], compression=zipfile.ZIP_DEFLATED)
    error = refused(read, many, Limits(decompressed_bytes=16 << 20))
    assert error.member == "a/16.png"
    assert "decompressed" in str(error)


def test_a_zip_member_that_understates_its_size_is_cut_off(write_zip, read):
    path = write_zip([("a/1.png", png() + b"\0" * (4 << 20))], compression=zipfile.ZIP_DEFLATED)
    raw = bytearray(path.read_bytes())
    size = len(png()) + (4 << 20)
    raw = raw.replace(struct.pack("<L", size), struct.pack("<L", 100))
    path.write_bytes(raw)
    assert refused(read, path).member == "a/1.png"


def test_tar_bombs_are_stopped_while_they_unfold(write_tar, read, tmp_path):
    path = write_tar([*CATS_AND_DOGS, ("a/zeros.bin", b"\0" * (64 << 20))])
    assert path.stat().st_size < 100_000
    error = refused(read, path)
    assert error.member == "a/zeros.bin"
    assert "times its size" in str(error)
    error = refused(read, path, Limits(ratio=10**6, decompressed_bytes=16 << 20))
    assert "decompressed" in str(error)


def test_a_tar_header_that_declares_gigabytes_of_metadata_is_stopped(tmp_path, read):
    header = tarfile.TarInfo("././@PaxHeader")
    header.type, header.size = tarfile.XHDTYPE, 3 << 30
    with gzip.open(tmp_path / "a.tar.gz", "wb") as stream:
        stream.write(header.tobuf())
        for _ in range(64):
            stream.write(b"\0" * (1 << 20))
    assert "times its size" in str(refused(read, tmp_path / "a.tar.gz"))


def test_sparse_members_are_refused(tmp_path, read):
    info = tarfile.TarInfo("a/1.png")
    buffer = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    buffer[156:157] = b"S"
    buffer[386:410] = b"00000000000\0" + b"00000000000\0"
    buffer[483:495] = b"20000000000\0"  # the size with its holes: 2 GiB
    buffer[148:156] = b"        "
    buffer[148:156] = b"%06o\0 " % sum(buffer[:512])
    with gzip.open(tmp_path / "a.tar.gz", "wb") as stream:
        stream.write(bytes(buffer) + b"\0" * 1024)
    assert "sparse" in str(refused(read, tmp_path / "a.tar.gz"))


def test_members_and_pixels_are_limited(archive, read):
    assert "more than 2 members" in str(refused(read, archive(CATS_AND_DOGS), Limits(members=2)))
    assert "more than 2 pictures" in str(refused(read, archive(CATS_AND_DOGS), Limits(samples=2)))
    assert "5 x 4 pixels" in str(refused(read, archive(CATS_AND_DOGS), Limits(pixels=19)))


def test_a_picture_that_unfolds_to_gigapixels_is_not_decoded(archive, read):
    huge = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(huge, "PNG")
    assert len(huge.getvalue()) < 100_000
    error = refused(read, archive([*CATS_AND_DOGS, ("a/huge.png", huge.getvalue())]))
    assert error.member == "a/huge.png"
    assert "pixels" in str(error)


def test_decoded_pixels_count_towards_the_limit(archive, read):
    flat = io.BytesIO()
    Image.new("RGB", (2000, 2000)).save(flat, "PNG")
    members = [(f"a/{i}.png", flat.getvalue()) for i in range(4)]
    error = refused(read, archive(members), Limits(decompressed_bytes=40_000_000))
    assert error.member == "a/3.png"


@pytest.mark.parametrize(
    ("content", "reason"), [(b"not a picture", "none of PNG"), (png()[:70], "damaged"), (b"", "none of PNG")]
)
def test_what_is_no_picture_is_named(archive, read, content, reason):
    error = refused(read, archive([*CATS_AND_DOGS, ("pets/cat/bad.png", content)]))
    assert error.member == "pets/cat/bad.png"
    assert reason in str(error)


def test_other_picture_formats_and_empty_archives(archive, read):
    assert refused(read, archive([*CATS_AND_DOGS, ("a/x.gif", b"GIF89a")])).member == "a/x.gif"
    assert "no PNG" in str(refused(read, archive([("readme.txt", b"hello")])))


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz"])
def test_damaged_archives(tmp_path, read, write_zip, write_tar, name):
    path = (write_zip if name == "a.zip" else write_tar)(
        [(n, png((200, 200, 3), seed=i)) for i, (n, _) in enumerate(CATS_AND_DOGS)]
    )
    raw = path.read_bytes()
    path.write_bytes(raw[: len(raw) // 2])
    assert "damaged" in str(refused(read, path))
    path.write_bytes(b"hello")
    assert "not a" in str(refused(read, path))


def test_options_for_columns_are_refused(archive, read):
    with pytest.raises(DatasetError) as caught:
        read(archive(CATS_AND_DOGS), label="x")
    assert caught.value.field == "/options/label"
