"""The blob store: a local folder by default, any fsspec URL (``s3://...``) in a cluster."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import fsspec

NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class StoreFullError(OSError):
    """No space is left in the store."""


def _refuse_full(error: OSError) -> None:
    if error.errno in NO_SPACE:
        raise StoreFullError(errno.ENOSPC, "the blob store is full") from error


def _open_s3(url: str) -> tuple[Any, str]:
    """Arrow's own S3 client, set by the ``AWS_*`` variables and the URL's query; it needs no further package.

    Delayed opening sends an object of one part as one request, not three.
    """
    from fsspec.implementations.arrow import ArrowFSWrapper
    from pyarrow.fs import FileSystem

    client, root = FileSystem.from_uri(f"{url}{'&' if '?' in url else '?'}allow_delayed_open=true")
    return ArrowFSWrapper(client), root


class BlobStore:
    """Keys are ``/``-separated names under one root; every write appears whole or not at all.

    Args:
        url: a local path, ``s3://bucket/prefix`` or another fsspec URL.
    """

    def __init__(self, url: str) -> None:
        self._s3 = url.startswith("s3://")
        self._fs, root = _open_s3(url) if self._s3 else fsspec.core.url_to_fs(url)
        self._root = str(root).rstrip("/")
        self._local = "file" in (self._fs.protocol if isinstance(self._fs.protocol, tuple) else (self._fs.protocol,))
        if self._local:
            Path(self._root).mkdir(parents=True, exist_ok=True)

    def local_path(self, key: str) -> Path | None:
        """The file of ``key`` where the store is a local folder, else None."""
        return Path(self._path(key)) if self._local else None

    @contextmanager
    def write(self, key: str) -> Iterator[IO[bytes]]:
        """Open ``key`` for writing; it appears when the block ends without an exception.

        Raises:
            StoreFullError: the disk is full; nothing is left behind.
        """
        with self._write_local(key) if self._local else self._write_remote(key) as file:
            yield file

    @contextmanager
    def _write_remote(self, key: str) -> Iterator[IO[bytes]]:
        # Renaming an object is a copy, and closing a half-written one would complete it: it is sent when it is whole.
        final = self._path(key)
        try:
            with tempfile.TemporaryFile() as spool:
                yield spool
                spool.seek(0)
                if not self._s3:
                    self._fs.makedirs(final.rpartition("/")[0], exist_ok=True)
                with self._fs.open(final, "wb") as target:
                    shutil.copyfileobj(spool, target, 1 << 20)
        except OSError as error:
            _refuse_full(error)
            raise

    @contextmanager
    def _write_local(self, key: str) -> Iterator[IO[bytes]]:
        final = self._path(key)
        partial = f"{self._root}/.partial/{uuid.uuid4().hex}"
        self._fs.makedirs(f"{self._root}/.partial", exist_ok=True)
        self._fs.makedirs(final.rpartition("/")[0], exist_ok=True)
        try:
            with self._fs.open(partial, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            self._fs.mv(partial, final)
        except BaseException as error:
            with suppress(FileNotFoundError, OSError):
                self._fs.rm(partial)
            if isinstance(error, OSError):
                _refuse_full(error)
            raise

    def put(self, key: str, data: bytes) -> None:
        """Write ``data`` at ``key``."""
        with self.write(key) as file:
            file.write(data)

    def put_file(self, key: str, path: Path) -> None:
        """Copy the file ``path`` to ``key``."""
        with self.write(key) as target, path.open("rb") as source:
            shutil.copyfileobj(source, target, 1 << 20)

    def open(self, key: str) -> IO[Any]:
        """Open ``key`` for reading, seekable.

        Raises:
            FileNotFoundError: there is no such key.
        """
        return self._fs.open(self._path(key), "rb")  # type: ignore[no-any-return]

    def get(self, key: str) -> bytes:
        """Read ``key`` whole.

        Raises:
            FileNotFoundError: there is no such key.
        """
        return bytes(self._fs.cat_file(self._path(key)))

    def get_file(self, key: str, path: Path) -> None:
        """Copy ``key`` to the local file ``path``."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self._fs.get_file(self._path(key), str(path))

    def size(self, key: str) -> int:
        """Bytes of ``key``.

        Raises:
            FileNotFoundError: there is no such key.
        """
        return int(self._fs.size(self._path(key)))

    def exists(self, key: str) -> bool:
        """Whether ``key`` is there."""
        self._fs.invalidate_cache()
        return bool(self._fs.exists(self._path(key)))

    def keys(self, prefix: str) -> list[str]:
        """All keys below ``prefix/``, sorted."""
        self._fs.invalidate_cache()
        with suppress(FileNotFoundError):
            found = self._fs.find(self._path(prefix))
            return sorted(str(path).removeprefix(self._root + "/") for path in found)
        return []

    def folders(self, prefix: str) -> list[str]:
        """Names of the folders directly below ``prefix/``, sorted."""
        self._fs.invalidate_cache()
        with suppress(FileNotFoundError):
            listed = self._fs.ls(self._path(prefix), detail=True)
            return sorted(item["name"].rstrip("/").rpartition("/")[2] for item in listed if item["type"] == "directory")
        return []

    def delete(self, key: str) -> None:
        """Remove ``key`` or everything below it; absent keys are fine."""
        with suppress(FileNotFoundError):
            self._fs.rm(self._path(key), recursive=True)

    def _path(self, key: str) -> str:
        parts = key.split("/")
        if not key or any(part in ("", ".", "..") for part in parts) or "\0" in key:
            raise ValueError(f"not a key: {key!r}")
        return f"{self._root}/{key}"
