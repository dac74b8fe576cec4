"""How requests were served, kept from a replica's reply until the request's log line is written."""

from __future__ import annotations

from typing import Any

MOST = 4096


class Notes:
    """Notes by request id; of requests that left meanwhile nobody asks, so that they are forgotten in bulk."""

    def __init__(self) -> None:
        self._kept: dict[str, dict[str, Any]] = {}

    def keep(self, request_ids: tuple[str, ...], batch: int, seconds: float) -> None:
        """One call of a replica, of ``batch`` inputs, took it ``seconds``."""
        if len(self._kept) > MOST:
            self._kept.clear()
        for request_id in request_ids:
            self._kept[request_id] = {"batch": batch, "compute_seconds": round(seconds, 6)}

    def take(self, request_id: str) -> dict[str, Any]:
        """What is known of the last call that served the request."""
        return self._kept.pop(request_id, {})
