"""Makers of small files in every format."""

import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.core.datasets import DatasetOptions, Limits
from models.core.datasets.reading import format_of, read_dataset

DATA = Path(__file__).parents[2] / "data"


def png(shape=(4, 5, 3), seed=0, encoding="PNG", **options):
    """Encoded bytes of a random picture."""
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, encoding, **options)
    return encoded.getvalue()


@pytest.fixture
def data():
    return DATA


@pytest.fixture
def read():
    """Reads a file by its name's ending; keyword arguments are options."""

    def read_file(path, limits=None, **options):
        return read_dataset(path, format_of(path.name), DatasetOptions(**options), limits or Limits())

    return read_file


@pytest.fixture
def write_zip(tmp_path):
    def write(members, name="a.zip", compression=zipfile.ZIP_STORED):
        with zipfile.ZipFile(tmp_path / name, "w", compression) as archive:
            for member, content in members:
                archive.writestr(member, content)
        return tmp_path / name

    return write


@pytest.fixture
def write_tar(tmp_path):
    """Members are ``(name or TarInfo, content)``."""

    def write(members, name="a.tar.gz"):
        with tarfile.open(tmp_path / name, "w:gz") as archive:
            for member, content in members:
                info = member if isinstance(member, tarfile.TarInfo) else tarfile.TarInfo(member)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
        return tmp_path / name

    return write
