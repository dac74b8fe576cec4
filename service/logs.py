"""Structured logs: JSON lines for machines, colours for a person at a terminal."""

from __future__ import annotations

import logging
import sys
from typing import Any, TextIO

import orjson
import structlog

from service.settings import Settings


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
