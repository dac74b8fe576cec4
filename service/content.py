"""Stored files as answers: one byte range, entity tags, conditional requests (RFC 9110), in constant memory."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from dataclasses import dataclass
from typing import IO
from urllib.parse import quote

from fastapi import Request, Response
from starlette.responses import StreamingResponse

from service.problems import Problem

CHUNK_BYTES = 256 << 10
_RANGE = re.compile(r"bytes=(\d*)-(\d*)$")


@dataclass(frozen=True)
class Content:
    """A stored file.

    Attributes:
        open: opens it for reading, seekable.
        sha256: its hash in hexadecimal; the entity tag.
        inline: whether a browser may show it instead of saving it.
    """

    open: Callable[[], IO[bytes]]
    size: int
    sha256: str
    media_type: str
    filename: str
    inline: bool = False


def content_response(request: Request, content: Content) -> Response:
    """200, 206 for one range, 304 where the client has it.

    Raises:
        Problem: 416 for a range outside the file.
    """
    tag = f'"{content.sha256}"'
    headers = {
        "ETag": tag,
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-cache",
        "X-Content-Type-Options": "nosniff",
    }
    if _names(request.headers.get("if-none-match", ""), tag):
        return Response(status_code=304, headers=headers)
    disposition = "inline" if content.inline else "attachment"
    headers["Content-Disposition"] = f"{disposition}; filename*=UTF-8''{quote(content.filename, safe='')}"
    if content.inline:
        # A page made from user data may run its own scripts, but not with this origin's rights.
        headers["Content-Security-Policy"] = "sandbox allow-scripts"
    start, end, status = 0, content.size, 200
    wanted = request.headers.get("range")
    if wanted is not None and request.headers.get("if-range", tag) == tag:
        found = _one_range(wanted, content.size)
        if found is not None:
            start, end = found
            status = 206
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{content.size}"
    headers["Content-Length"] = str(end - start)
    body = _read(content.open, start, end)
    return StreamingResponse(body, status, headers=headers, media_type=content.media_type)


def _names(header: str, tag: str) -> bool:
    candidates = [part.strip().removeprefix("W/") for part in header.split(",")]
    return tag in candidates or "*" in candidates


def _one_range(header: str, size: int) -> tuple[int, int] | None:
    """Start and end (exclusive); None for a header that is not understood, or several ranges, which may be ignored."""
    found = _RANGE.match(header.replace(" ", ""))
    if found is None or not (found[1] or found[2]):
        return None
    if not found[1]:
        start, end = max(0, size - int(found[2])), size
    else:
        start, end = int(found[1]), min(size, int(found[2]) + 1) if found[2] else size
        if found[2] and int(found[2]) < start:
            return None
    if start >= size or start >= end:
        headers = {"Content-Range": f"bytes */{size}"}
        raise Problem(416, f"the file has {size} bytes", headers=headers, code="range")
    return start, end


async def _read(open_file: Callable[[], IO[bytes]], start: int, end: int) -> AsyncIterator[bytes]:
    with closing(await asyncio.to_thread(open_file)) as file:
        await asyncio.to_thread(file.seek, start)
        while start < end:
            chunk = await asyncio.to_thread(file.read, min(CHUNK_BYTES, end - start))
            if not chunk:
                return
            start += len(chunk)
            yield chunk
