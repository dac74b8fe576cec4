"""Clients that never finish: a byte a second, or gone without a word. Others must be served meanwhile."""

import asyncio
import os
import socket
import time

import psutil

from tests.resilience.outcome import under_load
from tests.resilience.parts import processes
from tests.resilience.trial import NotPossible, of, quantiles

COUNT = 200
SLOW_S = 30.0
CALM_S = 10.0
TCP_REPAIR = 19
VANISHED_S = 180.0  # the kernel asks a silent peer for this long before it gives it up
BODY = b'{"model": "robust-ot"}' + b" " * 1000
HEAD = (
    b"POST /v1/distances HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n" % len(BODY)
)


def slow_clients(stack, asked):
    """Half of them send their headers a byte a second, half their bodies."""
    times = []

    async def faults(_):
        await asyncio.sleep(CALM_S)
        times.append(time.monotonic())
        slow = [asyncio.create_task(_dribble(stack, HEAD + BODY, 0 if i % 2 else len(HEAD))) for i in range(COUNT)]
        await asyncio.sleep(SLOW_S)
        times.append(time.monotonic())
        for task in slow:
            task.cancel()
        await asyncio.gather(*slow, return_exceptions=True)
        await asyncio.sleep(CALM_S / 5)

    outcome = under_load(stack, asked, "slow clients", faults)
    before, during = (
        quantiles([s.ended - s.started for s in outcome.samples if s.kind == "embeddings" and low <= s.started < high])
        for low, high in ((0, times[0]), times)
    )
    done = f"{COUNT} clients that send headers or bodies at a byte a second for {SLOW_S:.0f} s"
    return of(outcome, done, f"an embedding takes {during}; before {before}")


async def _dribble(stack, data, at_once):
    _, writer = await asyncio.open_connection("127.0.0.1", stack.port)
    try:
        writer.write(data[:at_once])
        for byte in data[at_once:]:
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(1)
    finally:
        writer.close()


def half_open(stack, asked):
    """Clients that vanish in the middle of a request, as behind a cable that is pulled: no FIN, no RST, no answer."""
    (gateway,) = processes(stack, "gateway")
    left = []

    async def faults(_):
        await asyncio.sleep(1)
        for number in range(COUNT):
            await asyncio.to_thread(_vanish, stack.port, HEAD if number % 2 else HEAD[:50])
        left.append(_connections(gateway))
        until = time.monotonic() + VANISHED_S
        while _connections(gateway) > COUNT // 4 and time.monotonic() < until:  # noqa: ASYNC110 - the kernel's work
            await asyncio.sleep(1)
        left.append(_connections(gateway))

    started = time.monotonic()
    outcome = under_load(stack, asked, "half-open sockets", faults)
    seconds = time.monotonic() - started
    broken = [f"{left[1]} connections are still open after {VANISHED_S:.0f} s"] if left[1] > COUNT // 4 else []
    done = f"{COUNT} clients that vanish within their request without closing the connection"
    return of(outcome, done, f"{left[0]} connections open, {left[1]} after {seconds:.0f} s", broken)


def _vanish(port, data):
    """Connect, send, and forget the connection: in repair mode the kernel closes it without telling the other side."""
    client = socket.create_connection(("127.0.0.1", port))
    client.sendall(data)
    time.sleep(0.01)
    try:
        client.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
    except OSError as error:
        client.close()
        raise NotPossible(
            f"a connection can only be forgotten with CAP_NET_ADMIN: {os.strerror(error.errno)}"
        ) from error
    client.close()


def _connections(process):
    return sum(c.status == psutil.CONN_ESTABLISHED for c in process.net_connections("tcp"))
