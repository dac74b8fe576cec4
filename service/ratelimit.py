"""Requests per minute of a key, as a token bucket that refills continuously."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from fastapi import Request

from service.problems import Problem

if TYPE_CHECKING:
    from service.auth import Caller
    from service.metrics import Metrics


class RateLimiter:
    """Token buckets by key.

    Args:
        per_minute: bucket size and refill; 0 means no limit.
    """

    def __init__(self, per_minute: int, metrics: Metrics) -> None:
        self._per_minute = per_minute
        self._metrics = metrics
        self._buckets: dict[str, tuple[float, float]] = {}

    def spend(self, caller: Caller, request: Request) -> None:
        """Take one token; the ``RateLimit-*`` headers of the answer say what is left.

        Raises:
            Problem: 429 with ``Retry-After`` when the bucket is empty.
        """
        if not self._per_minute:
            return
        now, rate = time.monotonic(), self._per_minute / 60
        tokens, since = self._buckets.get(caller.id, (float(self._per_minute), now))
        tokens = min(float(self._per_minute), tokens + (now - since) * rate)
        allowed = tokens >= 1
        tokens -= 1 if allowed else 0
        self._buckets[caller.id] = (tokens, now)
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
