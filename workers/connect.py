"""Redis clients: patient ones for workers and job processes, quick to give up for the gateway."""

from __future__ import annotations

from typing import Any

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

_ERRORS: list[type[Exception]] = [redis.ConnectionError, redis.TimeoutError]
#: What passes: Redis is away, has no memory for writes, or has become a replica of another.
AWAY: tuple[type[Exception], ...] = (*_ERRORS, redis.exceptions.OutOfMemoryError, redis.exceptions.ReadOnlyError)


def patient(url: str, *, decode: bool) -> redis.Redis:
    """A client that rides out about 55 s of :data:`AWAY` before it raises."""
    options: dict[str, Any] = {
        "retry": Retry(ExponentialBackoff(cap=1, base=0.05), 60),
        "retry_on_error": list(AWAY),
        "health_check_interval": 15,
        "socket_connect_timeout": 5,
        "decode_responses": decode,
    }
    return redis.Redis.from_url(url, **options)


def prompt(url: str) -> redis.Redis:
    """A client that raises within about two seconds."""
    options: dict[str, Any] = {
        "retry": Retry(ExponentialBackoff(cap=0.3, base=0.05), 3),
        "retry_on_error": _ERRORS,
        "socket_timeout": 2,
        "socket_connect_timeout": 1,
    }
    return redis.Redis.from_url(url, **options)


def prompt_async(url: str, *, socket_timeout: float = 2) -> redis.asyncio.Redis:
    """The same for asyncio, decoding responses; blocking reads need a longer ``socket_timeout`` than they block."""
    options: dict[str, Any] = {
        "retry": AsyncRetry(ExponentialBackoff(cap=0.3, base=0.05), 3),
        "retry_on_error": _ERRORS,
        "socket_timeout": socket_timeout,
        "socket_connect_timeout": 1,
        "decode_responses": True,
    }
    return redis.asyncio.Redis.from_url(url, **options)
