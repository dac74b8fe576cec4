"""The blob store: a local folder by default, any fsspec URL (``s3://...``) in a cluster."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, TypeVar

import fsspec

NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
AGAIN_S = 1.0
S3_ATTEMPTS, S3_CONNECT_S, S3_SILENCE_S = 3, 3.0, 6.0

T = TypeVar("T")


class StoreFullError(OSError):
    """No space is left in the store."""


class StoreUnavailableError(OSError):
    """The store cannot be reached, or refuses."""


@contextmanager
def _store_errors() -> Iterator[None]:
    """What the store cannot do, by its name; that something is absent stays what it is."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError, StoreFullError, StoreUnavailableError):
        raise
    except OSError as error:
        if error.errno in NO_SPACE:
            raise StoreFullError(errno.ENOSPC, "the blob store is full") from error
        raise StoreUnavailableError(error.errno, f"the blob store does not answer: {error}") from error


def _open_s3(url: str) -> tuple[Any, str]:
    """Arrow's own S3 client, set by the ``AWS_*`` variables and the URL's query; it needs no further package.

    Delayed opening sends an object of one part as one request, not three. Whoever can wait repeats a whole call: the
    client's own repetitions take a minute and a half where a server is there and silent.
    """
    from fsspec.implementations.arrow import ArrowFSWrapper
    from pyarrow.fs import AwsStandardS3RetryStrategy, FileSystem, S3FileSystem

    described, root = FileSystem.from_uri(f"{url}{'&' if '?' in url else '?'}allow_delayed_open=true")
    # A URL has no words for these; pickling names what it said as the constructor's own arguments.
    (said,) = described.__reduce__()[1]
    said |= {"connect_timeout": S3_CONNECT_S, "request_timeout": S3_SILENCE_S}
    said["retry_strategy"] = AwsStandardS3RetryStrategy(max_attempts=S3_ATTEMPTS)
    return ArrowFSWrapper(S3FileSystem(**said)), root


class BlobStore:
    """Keys are ``/``-separated names under one root; every write appears whole or not at all.

    Every method raises :class:`StoreUnavailableError` where the store cannot be reached.

    Args:
        url: a local path, ``s3://bucket/prefix`` or another fsspec URL.
        patience_s: how long a call is repeated before it raises.
    """

    def __init__(self, url: str, *, patience_s: float = 0.0) -> None:
        self._s3 = url.startswith("s3://")
        self._fs, root = _open_s3(url) if self._s3 else fsspec.core.url_to_fs(url)
        self._root = str(root).rstrip("/")
        self._local = "file" in (self._fs.protocol if isinstance(self._fs.protocol, tuple) else (self._fs.protocol,))
        self._patience_s = patience_s
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
                self._ask(lambda: self._send(spool, final))
        except OSError as error:
            if error.errno in NO_SPACE:
                raise StoreFullError(errno.ENOSPC, "the blob store is full") from error
            raise

    def _send(self, spool: IO[bytes], final: str) -> None:
        spool.seek(0)
        if not self._s3:
            self._fs.makedirs(final.rpartition("/")[0], exist_ok=True)
        with self._fs.open(final, "wb") as target:
            shutil.copyfileobj(spool, target, 1 << 20)

    @contextmanager
    def _write_local(self, key: str) -> Iterator[IO[bytes]]:
        final = self._path(key)
        partial = f"{self._root}/.partial/{uuid.uuid4().hex}"
        try:
            with _store_errors():
                self._fs.makedirs(f"{self._root}/.partial", exist_ok=True)
                self._fs.makedirs(final.rpartition("/")[0], exist_ok=True)
                opened = self._fs.open(partial, "wb")
            with opened as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            with _store_errors():
                self._fs.mv(partial, final)
        except BaseException as error:
            with suppress(FileNotFoundError, OSError):
                self._fs.rm(partial)
            if isinstance(error, OSError) and error.errno in NO_SPACE:
                raise StoreFullError(errno.ENOSPC, "the blob store is full") from error
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
        path = self._path(key)
        return self._ask(lambda: self._fs.open(path, "rb"))

    def get(self, key: str) -> bytes:
        """Read ``key`` whole.

        Raises:
            FileNotFoundError: there is no such key.
        """
        path = self._path(key)
        return self._ask(lambda: bytes(self._fs.cat_file(path)))

    def get_file(self, key: str, path: Path) -> None:
        """Copy ``key`` to the local file ``path``, which appears whole or not at all."""
        source, partial = self._path(key), path.with_name(f".{uuid.uuid4().hex}.partial")
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._ask(lambda: self._fs.get_file(source, str(partial)))
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    def size(self, key: str) -> int:
        """Bytes of ``key``.

        Raises:
            FileNotFoundError: there is no such key.
        """
        path = self._path(key)
        return self._ask(lambda: int(self._fs.size(path)))

    def exists(self, key: str) -> bool:
        """Whether ``key`` is there."""
        path = self._path(key)
        self._fs.invalidate_cache()
        try:
            self._ask(lambda: self._fs.info(path))  # the library's own `exists` says no where it could not ask
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def keys(self, prefix: str) -> list[str]:
        """All keys below ``prefix/``, sorted."""
        path = self._path(prefix)
        self._fs.invalidate_cache()
        with suppress(FileNotFoundError):
            return sorted(name.removeprefix(self._root + "/") for name in self._ask(lambda: list(self._files(path))))
        return []

    def _files(self, folder: str) -> Iterator[str]:
        """All files below ``folder``; the library's own walk leaves out what it could not list."""
        for item in self._fs.ls(folder, detail=True):
            if item["type"] != "directory":
                yield str(item["name"])
            elif item["name"].rstrip("/") != folder:
                yield from self._files(item["name"].rstrip("/"))

    def folders(self, prefix: str) -> list[str]:
        """Names of the folders directly below ``prefix/``, sorted."""
        path = self._path(prefix)
        self._fs.invalidate_cache()
        with suppress(FileNotFoundError):
            listed = self._ask(lambda: self._fs.ls(path, detail=True))
            return sorted(item["name"].rstrip("/").rpartition("/")[2] for item in listed if item["type"] == "directory")
        return []

    def delete(self, key: str) -> None:
        """Remove ``key`` or everything below it; absent keys are fine."""
        path = self._path(key)
        with suppress(FileNotFoundError):
            self._ask(lambda: self._fs.rm(path, recursive=True))

    def _ask(self, do: Callable[[], T]) -> T:
        """Do one thing with the store, again for a while where it does not answer."""
        until = time.monotonic() + self._patience_s
        while True:
            try:
                with _store_errors():
                    return do()
            except StoreUnavailableError:
                if time.monotonic() >= until:
                    raise
            time.sleep(AGAIN_S)

    def _path(self, key: str) -> str:
        parts = key.split("/")
        if not key or any(part in ("", ".", "..") for part in parts) or "\0" in key:
            raise ValueError(f"not a key: {key!r}")
        return f"{self._root}/{key}"
