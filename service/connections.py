"""Connections whose client has gone without a word, or never comes to the point: they must not pile up."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_S = 30.0
# A silent peer is asked after half a minute and given up after another; without that a vanished one is kept for ever.
_KEEPALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3}


class WatchedProtocol(HttpToolsProtocol):
    """HTTP on a connection whose other end the kernel looks after."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Ask the kernel for keep-alive probes."""
        super().connection_made(transport)
        connection = transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, seconds in _KEEPALIVE.items():
            if hasattr(socket, name):  # macOS has other names
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), seconds)


class Laggards:
    """Ends connections on which no request's head has come to its end for :data:`HEAD_S` seconds.

    The server itself ends those that are idle after an answer, and none that has begun to send.
    """

    def __init__(self) -> None:
        self._since: dict[Any, tuple[Any, float]] = {}

    def end(self, connections: Iterable[Any], now: float) -> None:
        """Look at all connections; called every few seconds."""
        waiting = {}
        for connection in connections:
            cycle = connection.cycle
            if cycle is not None and not cycle.response_complete:
                continue
            seen, since = self._since.get(connection, (cycle, now))
            since = since if seen is cycle else now
            if now - since > HEAD_S:
                connection.transport.close()
            else:
                waiting[connection] = (cycle, since)
        self._since = waiting
