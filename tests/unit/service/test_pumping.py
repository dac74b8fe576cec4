"""A blocking generator read from an event loop."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from service.calls import Reply
from service.pumping import pump


@pytest.fixture
def threads():
    with ThreadPoolExecutor(1) as pool:
        yield pool


def test_replies_come_in_order_and_as_they_are_made(threads):
    seen = []

    def produce(gone):
        for i in range(3):
            yield Reply([i])
            until = time.monotonic() + 5
            while len(seen) <= i and time.monotonic() < until:
                time.sleep(0.001)

    async def read():
        async for reply in pump(threads, produce):
            seen.append(reply.outputs[0])  # noqa: PERF401 - the producer watches it grow

    asyncio.run(read())
    assert seen == [0, 1, 2]


def test_the_thread_ends_with_its_reader(threads):
    ended = threading.Event()

    def produce(gone):
        while not gone():
            yield Reply([])
            time.sleep(0.001)
        ended.set()

    async def read():
        stream = pump(threads, produce)
        await anext(stream)
        await stream.aclose()
        assert await asyncio.to_thread(ended.wait, 5)

    asyncio.run(read())


def test_a_failure_reaches_the_reader(threads):
    def produce(gone):
        yield Reply([])
        raise OSError("broken")

    async def read():
        return [reply async for reply in pump(threads, produce)]

    with pytest.raises(OSError, match="broken"):
        asyncio.run(read())
