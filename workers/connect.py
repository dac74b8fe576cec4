"""Redis clients: patient ones for workers and job processes, quick to give up for the gateway.

Everything that speaks to Redis gets its client here, from the one URL of the settings: ``redis``, ``rediss`` or
``unix``, or Sentinels that know the master (:mod:`workers.sentinels`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

import redis
import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import ExponentialBackoff
from redis.retry import Retry

from workers.masters import async_master, master
from workers.sentinels import parse_sentinels

MOST_CONNECTIONS = 8192
REFUSALS = ("LOADING", "MASTERDOWN", "MISCONF", "NOREPLICAS", "READONLY", "UNBLOCKED")
_ERRORS: list[type[Exception]] = [redis.ConnectionError, redis.TimeoutError]
#: What passes: Redis is away, has no memory for writes, or has become a replica of another.
AWAY: tuple[type[Exception], ...] = (*_ERRORS, redis.exceptions.OutOfMemoryError, redis.exceptions.ReadOnlyError)
_REFUSED = re.compile(rf"(^|: )({'|'.join(REFUSALS)})\b")  # a pipeline's errors name their command first

T = TypeVar("T")


def refuses(error: redis.ResponseError) -> bool:
    """Whether the server is there and cannot write now: a replica, or a master without disk or replicas."""
    return _REFUSED.search(str(error)) is not None


class WaitingRetry(Retry):
    """Repeats what a server refuses for now like what it did not answer: a failover or a full disk passes."""

    def call_with_retry(self, do: Callable[[], T], *args: Any, **options: Any) -> T:
        """Do it, again where that may help."""
        return super().call_with_retry(lambda: _done(do), *args, **options)


def _done(do: Callable[[], T]) -> T:
    try:
        return do()
    except redis.ResponseError as error:
        if refuses(error):
            raise redis.ConnectionError(str(error)) from error
        raise


def patient(url: str, *, decode: bool) -> redis.Redis:
    """A client that rides out about 55 s of :data:`AWAY` before it raises."""
    options: dict[str, Any] = {
        "retry": WaitingRetry(ExponentialBackoff(cap=1, base=0.05), 60),
        "retry_on_error": list(AWAY),
        "health_check_interval": 15,
        "socket_connect_timeout": 5,
        "decode_responses": decode,
    }
    return _client(url, options)


def prompt(url: str) -> redis.Redis:
    """A client that raises within about two seconds."""
    options: dict[str, Any] = {
        "retry": Retry(ExponentialBackoff(cap=0.3, base=0.05), 3),
        "retry_on_error": _ERRORS,
        "socket_timeout": 2,
        "socket_connect_timeout": 1,
    }
    return _client(url, options)


def prompt_async(url: str, *, socket_timeout: float = 2, retries: int = 3) -> redis.asyncio.Redis:
    """The same for asyncio, decoding responses; blocking reads need a longer ``socket_timeout`` than they block.

    Every reader of events holds a connection while it waits, far more than the library's limit of 100.
    """
    options: dict[str, Any] = {
        "retry": AsyncRetry(ExponentialBackoff(cap=0.3, base=0.05), retries),
        "retry_on_error": _ERRORS,
        "socket_timeout": socket_timeout,
        "socket_connect_timeout": min(1, socket_timeout),
        "decode_responses": True,
        "max_connections": MOST_CONNECTIONS,
    }
    sentinels = parse_sentinels(url)
    return redis.asyncio.Redis.from_url(url, **options) if sentinels is None else async_master(sentinels, options)


def _client(url: str, options: dict[str, Any]) -> redis.Redis:
    sentinels = parse_sentinels(url)
    return redis.Redis.from_url(url, **options) if sentinels is None else master(sentinels, options)
