"""A blocking generator of replies, read from an event loop: one thread runs it, and stops with its reader."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from service.calls import Reply

Produce = Callable[[Callable[[], bool]], Iterator[Reply]]


async def pump(threads: ThreadPoolExecutor, produce: Produce) -> AsyncGenerator[Reply]:
    """Yield what ``produce`` yields, as soon as it does.

    Args:
        produce: gets a function that says whether the reader is gone; looks at it between its steps.
    """
    loop = asyncio.get_running_loop()
    replies: asyncio.Queue[Reply | None] = asyncio.Queue()
    gone = threading.Event()

    def work() -> None:
        try:
            for reply in produce(gone.is_set):
                loop.call_soon_threadsafe(replies.put_nowait, reply)
        finally:
            loop.call_soon_threadsafe(replies.put_nowait, None)

    working = loop.run_in_executor(threads, work)
    try:
        while (reply := await replies.get()) is not None:
            yield reply
        await working
    finally:
        gone.set()
