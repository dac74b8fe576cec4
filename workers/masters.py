"""Clients of the master that Sentinels know, which follow it wherever a failover takes it."""

from __future__ import annotations

from typing import Any

import redis
import redis.asyncio
from redis.asyncio import sentinel as async_sentinel
from redis.asyncio.connection import SSLConnection as AsyncSSLConnection
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.connection import SSLConnection
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelManagedConnection

from workers.sentinels import Sentinels

_ASKING: dict[str, Any] = {"socket_timeout": 1, "socket_connect_timeout": 0.5}


class MasterConnection(SentinelManagedConnection):
    """Asks for the master whenever it connects.

    The library's own asks when it is taken from the pool only: one that is cut off during a command, and connects anew
    to repeat it, goes back to the old master for as long as it has patience.
    """

    def connect_check_health(self, check_health: bool = True, retry_socket_connect: bool = True) -> None:
        """Connect once, to the master; whoever repeats the command repeats this."""
        if not self._sock:
            self.host, self.port = self.connection_pool.get_master_address()
        super().connect_check_health(check_health, retry_socket_connect=False)


class MasterSSLConnection(MasterConnection, SSLConnection):
    """The same behind TLS."""


class AsyncMasterConnection(async_sentinel.SentinelManagedConnection):
    """:class:`MasterConnection` for asyncio."""

    async def connect_check_health(self, check_health: bool = True, retry_socket_connect: bool = True) -> None:
        """Connect once, to the master; whoever repeats the command repeats this."""
        if not self.is_connected:
            self.host, self.port = await self.connection_pool.get_master_address()
        await super().connect_check_health(check_health, retry_socket_connect=False)


class AsyncMasterSSLConnection(AsyncMasterConnection, AsyncSSLConnection):
    """The same behind TLS."""


def master(sentinels: Sentinels, options: dict[str, Any]) -> redis.Redis:
    """A client whose connections have ``options``."""
    own = {**_ASKING, "retry": Retry(NoBackoff(), 0), **sentinels.own}
    asked = Sentinel(sentinels.hosts, sentinel_kwargs=own)  # type: ignore[no-untyped-call]
    kind = MasterSSLConnection if sentinels.server.get("ssl") else MasterConnection
    found: redis.Redis = asked.master_for(  # type: ignore[no-untyped-call]
        sentinels.service, connection_class=kind, **sentinels.server, **options
    )
    return found


def async_master(sentinels: Sentinels, options: dict[str, Any]) -> redis.asyncio.Redis:
    """The same for asyncio."""
    own = {**_ASKING, "retry": AsyncRetry(NoBackoff(), 0), **sentinels.own}
    asked = async_sentinel.Sentinel(sentinels.hosts, sentinel_kwargs=own)  # type: ignore[no-untyped-call]
    kind = AsyncMasterSSLConnection if sentinels.server.get("ssl") else AsyncMasterConnection
    found: redis.asyncio.Redis = asked.master_for(
        sentinels.service, connection_class=kind, **sentinels.server, **options
    )
    return found
