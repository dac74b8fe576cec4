"""The backend without Ray: the same host in a thread, for tests and for machines too small for Ray."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

from models.core.versions import Version
from service.calls import CALLS_PER_REPLICA, Call, Reply
from service.pumping import pump
from service.settings import Settings

if TYPE_CHECKING:
    from service.host import ModelHost


class InProcessBackend:
    """Calls run in threads of this process."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._threads = ThreadPoolExecutor(CALLS_PER_REPLICA, thread_name_prefix="predict")
        self._host: ModelHost | None = None

    async def start(self) -> None:
        """Import torch and make the host."""
        self._host = await asyncio.get_running_loop().run_in_executor(self._threads, self._make_host)

    async def replicas(self) -> Mapping[str, Mapping[str, int]]:
        """None: this process is all there is."""
        return {}

    async def stop(self) -> None:
        """Wait for the calls that run."""
        await asyncio.to_thread(self._threads.shutdown, wait=True, cancel_futures=True)

    async def call(self, version: Version, call: Call) -> Reply:
        """Run the call in a thread."""
        assert self._host is not None
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._host.call, call)

    def stream(self, version: Version, call: Call, previews: int) -> AsyncGenerator[Reply]:
        """Run the call in a thread, previews first."""
        assert self._host is not None
        return pump(self._threads, partial(self._host.stream, call, previews))

    def _make_host(self) -> ModelHost:
        from service.host import ModelHost

        return ModelHost(self._settings)
