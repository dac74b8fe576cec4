"""Whether the blob store answers, asked by one thread at a time and waited for briefly."""

from __future__ import annotations

import asyncio

import structlog

from models.core.store import BlobStore, StoreUnavailableError

log = structlog.get_logger("deepnight.gateway")

LOOK_S = 3.0


class StoreLook:
    """Looks at the store for probes, which come again while a silent store still keeps the last look waiting."""

    def __init__(self, store: BlobStore) -> None:
        self._store = store
        self._looking: asyncio.Future[bool] | None = None

    async def answers(self) -> bool:
        """Whether the store answered within three seconds."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.ensure_future(asyncio.to_thread(self._look))
        done, _ = await asyncio.wait({self._looking}, timeout=LOOK_S)
        return bool(done) and self._looking.result()

    def _look(self) -> bool:
        try:
            self._store.exists("versions/any")
        except StoreUnavailableError as error:
            log.warning("the store does not answer", error=str(error))
            return False
        return True
