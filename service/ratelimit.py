"""Requests per minute of a key, as a token bucket that refills continuously.

The buckets are in Redis, so that a key has one rate however many gateways it is sent to. While Redis is away each
gateway counts for itself, as predictions need no Redis.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import structlog
from fastapi import Request

from service.problems import Problem
from workers.client import JobsClient, QueueUnavailableError

if TYPE_CHECKING:
    from service.auth import Caller
    from service.metrics import Metrics

log = structlog.get_logger("deepnight.auth")

ALONE_S = 5.0


class RateLimiter:
    """Token buckets by key.

    Args:
        per_minute: bucket size and refill; 0 means no limit.
        jobs: where the buckets are that all gateways share.
    """

    def __init__(self, per_minute: int, metrics: Metrics, jobs: JobsClient) -> None:
        self._per_minute = per_minute
        self._metrics = metrics
        self._jobs = jobs
        self._own: dict[str, tuple[float, float]] = {}
        self._alone_until = float("-inf")

    async def spend(self, caller: Caller, request: Request) -> None:
        """Take one token; the ``RateLimit-*`` headers of the answer say what is left.

        Raises:
            Problem: 429 with ``Retry-After`` when the bucket is empty.
        """
        if not self._per_minute:
            return
        allowed, tokens = await self._take(caller.id)
        rate = self._per_minute / 60
        headers = {
            "RateLimit-Limit": str(self._per_minute),
            "RateLimit-Remaining": str(math.floor(tokens)),
            "RateLimit-Reset": str(math.ceil((self._per_minute - tokens) / rate)),
        }
        request.state.answer_headers = headers
        if not allowed:
            self._metrics.rate_limited.labels(self._metrics.key(caller.name)).inc()
            wait = str(max(1, math.ceil((1 - tokens) / rate)))
            raise Problem(
                429,
                f"this key may send {self._per_minute} requests a minute",
                headers={"Retry-After": wait},
                code="rate_limited",
            )

    async def _take(self, key: str) -> tuple[bool, float]:
        """Whether there was a token, and how many are left."""
        if time.monotonic() >= self._alone_until:
            try:
                return await self._jobs.take_token(key, self._per_minute)
            except QueueUnavailableError:
                log.warning("Redis is away: this gateway counts the requests of keys for itself", seconds=ALONE_S)
                self._alone_until = time.monotonic() + ALONE_S
        return self._take_own(key)

    def _take_own(self, key: str) -> tuple[bool, float]:
        now, size = time.monotonic(), float(self._per_minute)
        tokens, since = self._own.get(key, (size, now))
        tokens = min(size, tokens + (now - since) * size / 60)
        allowed = tokens >= 1
        tokens -= 1 if allowed else 0
        self._own[key] = (tokens, now)
        return allowed, tokens
