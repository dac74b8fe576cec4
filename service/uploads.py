"""A multipart upload, streamed to a file while it is hashed and bounded; memory does not grow with the file."""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import orjson
from fastapi import Request
from pydantic import ValidationError
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect

from models.core.datasets import DatasetOptions
from service.problems import FieldError, Problem, field_errors

CLIENT_CLOSED_REQUEST = 499
FLUSH_BYTES = 1 << 20
MAX_NAME = 200
MAX_FIELDS = {"name": 4 * MAX_NAME, "options": 4 << 20}
STALE_S = 3600.0


@dataclass(frozen=True)
class Upload:
    """A received upload; ``path`` goes away with the block that received it."""

    path: Path
    filename: str
    name: str | None
    options: DatasetOptions
    sha256: str


@asynccontextmanager
async def receive_upload(request: Request, folder: Path, most_bytes: int) -> AsyncIterator[Upload]:
    """Receive the form of ``request`` into ``folder``; nothing stays there, however the block ends.

    Raises:
        Problem: 415 not multipart, 400 malformed or cut off, 413 too large, 422 a field is missing or not valid.
    """
    form = _Form(_boundary(request), most_bytes)
    path = folder / uuid.uuid4().hex
    try:
        await asyncio.to_thread(_prepare, folder)
        digest = hashlib.sha256()
        with path.open("wb") as file:
            received = 0
            async for chunk in _stream(request):
                received += len(chunk)
                if received > most_bytes + sum(MAX_FIELDS.values()) + FLUSH_BYTES:
                    raise _too_large(most_bytes)
                form.feed(chunk)
                if len(form.pending) >= FLUSH_BYTES:
                    await asyncio.to_thread(_flush, form.take(), file, digest)
            await asyncio.to_thread(_flush, form.take(), file, digest)
            await asyncio.to_thread(file.close)
        filename, name, options = form.finish()
        yield Upload(path, filename, name, options, digest.hexdigest())
    finally:
        path.unlink(missing_ok=True)


async def _stream(request: Request) -> AsyncIterator[bytes]:
    try:
        async for chunk in request.stream():
            yield chunk
    except ClientDisconnect:
        raise Problem(CLIENT_CLOSED_REQUEST, "the client closed the connection") from None


def _prepare(folder: Path) -> None:
    """Make the folder and remove what killed processes left there; a live upload's file is written all the time."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir():
        with suppress(FileNotFoundError):  # its upload has just ended
            if time.time() - path.lstat().st_mtime > STALE_S:
                path.unlink()


def _flush(data: bytes, file: object, digest: object) -> None:
    file.write(data)  # type: ignore[attr-defined]
    digest.update(data)  # type: ignore[attr-defined]


def _boundary(request: Request) -> bytes:
    media_type, options = parse_options_header(request.headers.get("content-type"))
    if media_type != b"multipart/form-data":
        shown = media_type.decode("latin-1")[:100] or "nothing"
        errors = [FieldError("Content-Type", "multipart/form-data with a part named file")]
        raise Problem(415, f"expected multipart/form-data, got {shown}", errors=errors, code="media_type")
    if not options.get(b"boundary"):
        errors = [FieldError("Content-Type", "boundary is missing")]
        raise Problem(400, "the multipart boundary is missing", errors=errors, code="malformed_multipart")
    return options[b"boundary"]


class _Form:
    """The parts ``file``, ``name`` and ``options``, in any order, fed chunk by chunk."""

    def __init__(self, boundary: bytes, most_bytes: int) -> None:
        self.pending = bytearray()
        self._most_bytes = most_bytes
        self._size = 0
        self._fields: dict[str, bytearray] = {}
        self._filename: str | None = None
        self._part = ""
        self._header = bytearray()
        self._value = bytearray()
        self._headers: dict[bytes, bytes] = {}
        self._ended = False
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._headers.clear,
                    "on_header_field": lambda data, start, end: self._header.extend(data[start:end]),
                    "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
                    "on_header_end": self._on_header_end,
                    "on_headers_finished": self._on_part,
                    "on_part_data": self._on_data,
                    "on_end": self._on_end,
                },
            )
        except FormParserError as error:
            raise _malformed(str(error)) from error

    def feed(self, chunk: bytes) -> None:
        """Parse one chunk.

        Raises:
            Problem: malformed, too large, or a part that is not known.
        """
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise _malformed("it cannot be parsed") from error

    def take(self) -> bytes:
        """The bytes of the file since the last call."""
        data = bytes(self.pending)
        self.pending.clear()
        return data

    def finish(self) -> tuple[str, str | None, DatasetOptions]:
        """The file's name, the data set's name and the options.

        Raises:
            Problem: cut off, no file, or a field that is not valid.
        """
        if not self._ended:
            raise _malformed("it ends before its last boundary")
        if self._filename is None:
            raise _invalid("/file", "the file is missing")
        return self._filename, self._name(), self._options()

    def _name(self) -> str | None:
        raw = self._fields.get("name")
        if raw is None:
            return None
        try:
            name = raw.decode("utf-8").strip()
        except UnicodeDecodeError:
            raise _invalid("/name", "not UTF-8") from None
        if not name or len(name) > MAX_NAME or not name.isprintable():
            raise _invalid("/name", f"1 to {MAX_NAME} printable characters")
        return name

    def _options(self) -> DatasetOptions:
        raw = self._fields.get("options")
        if raw is None or not raw.strip():
            return DatasetOptions()
        try:
            value = orjson.loads(bytes(raw))
        except orjson.JSONDecodeError as error:
            errors = [FieldError("/options", f"not JSON: {error.msg} at position {error.pos}")]
            raise Problem(400, "options is not valid JSON", errors=errors, code="malformed_json") from error
        try:
            return DatasetOptions.model_validate(value)
        except ValidationError as error:
            errors = field_errors(error, "/options")
            raise Problem(422, "an option is not valid", errors=errors, code="invalid_options") from error

    def _on_header_end(self) -> None:
        self._headers[bytes(self._header).lower()] = bytes(self._value)
        self._header.clear()
        self._value.clear()

    def _on_part(self) -> None:
        disposition = self._headers.get(b"content-disposition", b"").decode("latin-1")
        _, parameters = parse_options_header(disposition)
        name = parameters.get(b"name", b"").decode("utf-8", "replace")
        if name not in ("file", *MAX_FIELDS):
            raise _invalid(f"/{name[:100]}", "the form has the fields file, name and options")
        if name in self._fields or (name == "file" and self._filename is not None):
            raise _invalid(f"/{name}", "sent twice")
        if name == "file":
            self._filename = _base_name(parameters.get(b"filename", b"").decode("utf-8", "replace"))
        else:
            self._fields[name] = bytearray()
        self._part = name

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        if self._part == "file":
            self._size += end - start
            if self._size > self._most_bytes:
                raise _too_large(self._most_bytes)
            self.pending += memoryview(data)[start:end]
            return
        field = self._fields[self._part]
        field += memoryview(data)[start:end]
        if len(field) > MAX_FIELDS[self._part]:
            raise _invalid(f"/{self._part}", f"longer than {MAX_FIELDS[self._part]} bytes")

    def _on_end(self) -> None:
        self._ended = True


def _base_name(filename: str) -> str:
    """The last part of what the client calls the file; only its ending and its looks matter."""
    name = PurePosixPath(filename.replace("\\", "/")).name
    name = re.sub(r"[^\w .()+-]", "_", name)[-MAX_NAME:].strip()
    if not name:
        raise _invalid("/file", "the file has no name; its ending says the format")
    return name


def _malformed(detail: str) -> Problem:
    return Problem(400, f"the multipart body is malformed: {detail}", code="malformed_multipart")


def _invalid(field: str, detail: str) -> Problem:
    return Problem(422, "the upload is not valid", errors=[FieldError(field, detail)], code="invalid_upload")


def _too_large(most_bytes: int) -> Problem:
    errors = [FieldError("/file", f"at most {most_bytes} bytes")]
    return Problem(413, "the file is too large", errors=errors, code="too_large")
