"""Structured logs: JSON lines for machines, colours for a person at a terminal."""

from __future__ import annotations

import asyncio
import logging
import sys
from datetime import UTC, datetime
from typing import Any, TextIO

import orjson
import structlog

from service.settings import Settings


class RequestLines:
    """The line of each answered request.

    JSON lines are written together at the end of the event loop's pass, behind the answers, and without structlog's
    chain of processors, which takes as long as reading a small request.
    """

    def __init__(self) -> None:
        self._stream: TextIO | None = None
        self._lines: list[bytes] = []

    def configure(self, stream: TextIO | None) -> None:
        """Write JSON to ``stream``; None: through structlog."""
        self._stream = stream

    def add(self, fields: dict[str, Any]) -> None:
        """Write the line of one request."""
        if self._stream is None:
            structlog.get_logger("deepnight.request").info("request", **fields)
            return
        now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        self._lines.append(orjson.dumps({**fields, "event": "request", "level": "info", "timestamp": now}, default=str))
        if len(self._lines) == 1:
            asyncio.get_running_loop().call_soon(self._write, self._stream)

    def _write(self, stream: TextIO) -> None:
        lines, self._lines = self._lines, []
        stream.write(b"\n".join([*lines, b""]).decode())
        stream.flush()


requests = RequestLines()


def own_stderr() -> TextIO:
    """Stderr of this process, for replicas.

    Ray Serve puts an object in the place of ``sys.stderr`` that walks the stack for every line, a quarter of what a
    small request costs, and that says it is a terminal, so that lines were coloured rather than JSON.
    """
    return sys.__stderr__ or sys.stderr


def configure(settings: Settings, stream: TextIO | None = None) -> None:
    """Send structlog's and the standard library's records to ``stream`` in the format that ``settings`` asks for.

    Args:
        stream: stderr by default.
    """
    stream = stream or sys.stderr
    pretty = settings.log_format == "pretty" or (settings.log_format == "auto" and stream.isatty())
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    # Without local variables, which may hold keys and payloads.
    tracebacks = structlog.processors.ExceptionRenderer(
        structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
    )
    ending: list[Any] = (
        [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
        if pretty
        else [tracebacks, structlog.processors.JSONRenderer(serializer=_dumps)]
    )
    # Own records do not pass through `logging`, which would cost more than the rest of a small request.
    structlog.configure(
        processors=[*shared, *ending],
        logger_factory=structlog.WriteLoggerFactory(stream),
        wrapper_class=structlog.make_filtering_bound_logger(settings.log_level),
        cache_logger_on_first_use=True,
    )
    requests.configure(None if pretty or settings.log_level not in ("debug", "info") else stream)
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *ending],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level.upper())
    for noisy in ("uvicorn.access", "httpx", "ray"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def _dumps(record: Any, **_: Any) -> str:
    return orjson.dumps(record, default=str).decode()
