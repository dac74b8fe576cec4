"""What zip and tar archives of class folders share: which members are pictures, which names are refused."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePosixPath

import pyarrow as pa

from models.core.dataset import Dataset
from models.core.datasets.columns import shorten
from models.core.datasets.errors import DatasetError
from models.core.datasets.labels import encode_labels
from models.core.datasets.options import DatasetOptions, Limits, Parsed
from models.core.datasets.pictures import PictureDecoder, stack_pictures

PICTURES = (".png", ".jpg", ".jpeg", ".webp")
_OTHER_PICTURES = (".gif", ".bmp", ".tif", ".tiff", ".heic", ".avif", ".svg", ".jp2")
_LITTER = ("__MACOSX", ".DS_Store", "Thumbs.db", "desktop.ini")
MAX_MEMBER_NAME = 1024


def check_member(name: str) -> None:
    """Refuse names that would leave a folder if they were written, which they never are.

    Raises:
        DatasetError: absolute, with ``..``, a backslash, a drive letter or a control character, or too long.
    """
    parts = name.rstrip("/").split("/")
    if name.startswith("/") or ".." in parts or "\\" in name or (len(name) > 1 and name[1] == ":"):
        raise DatasetError("the name leaves its folder", member=name[:MAX_MEMBER_NAME])
    if len(name) > MAX_MEMBER_NAME or not name.isprintable():
        raise DatasetError("the name is too long or has control characters", member=name[:MAX_MEMBER_NAME])


def is_picture(name: str) -> bool:
    """Whether the member is a sample.

    Raises:
        DatasetError: a picture of a format that is not read.
    """
    path = PurePosixPath(name)
    if any(part in _LITTER or part.startswith(".") for part in path.parts):
        return False
    if path.suffix.lower() in _OTHER_PICTURES:
        raise DatasetError("pictures are PNG, JPEG or WebP", member=name)
    return path.suffix.lower() in PICTURES


def folders_to_dataset(
    members: Iterable[tuple[str, bytes | None]], options: DatasetOptions, limits: Limits, decoder: PictureDecoder
) -> Parsed:
    """Pictures in archive order; the class is the folder that a picture lies in, the id its member name.

    Args:
        members: ``(name, content)``; the content is None where the member is no picture.

    Raises:
        DatasetError: no picture, one that cannot be read, or one outside a class folder; names the member.
    """
    _refuse_columns(options)
    names, pictures, others = [], [], []
    for name, content in members:
        if content is None:
            others.append(name)
            continue
        try:
            pictures.append(decoder.decode(content))
        except DatasetError as error:
            raise DatasetError(error.detail, member=name) from error
        names.append(name)
        if len(names) > limits.samples:
            raise DatasetError(f"more than {limits.samples} pictures", member=name)
    if not names:
        raise DatasetError("the archive holds no PNG, JPEG or WebP pictures")
    warnings = [f"members that are no pictures were left out: {shorten(others, 5)}"] if others else []
    folders = [PurePosixPath(name).parent.name for name in names]
    if not any(folders):
        return Parsed(Dataset("images", stack_pictures(pictures), sample_ids=names), warnings)
    if "" in folders:
        raise DatasetError("the picture lies in no class folder, others do", member=names[folders.index("")])
    labels, class_names = encode_labels(pa.array(folders), options.class_names)
    return Parsed(Dataset("images", stack_pictures(pictures), labels, class_names, names), warnings)


def _refuse_columns(options: DatasetOptions) -> None:
    for option in ("label", "image", "text", "text_pair", "features", "id"):
        if getattr(options, option) is not None:
            raise DatasetError("archives of class folders have no columns", field=f"/options/{option}")


class Members:
    """Counts members and refuses names that occur twice."""

    def __init__(self, limits: Limits) -> None:
        self._seen: set[str] = set()
        self._limits = limits

    def admit(self, name: str) -> None:
        """Check and count one member.

        Raises:
            DatasetError: a refused name, one that was there before, or too many members.
        """
        check_member(name)
        if name in self._seen:
            raise DatasetError("the name is there twice", member=name)
        if len(self._seen) >= self._limits.members:
            raise DatasetError(f"more than {self._limits.members} members", member=name)
        self._seen.add(name)
