import asyncio
import socket
from contextlib import asynccontextmanager

import pytest
import uvicorn

from service.connections import HEAD_S, Laggards, WatchedProtocol

HEAD = b"GET / HTTP/1.1\r\nHost: localhost\r\n"


@asynccontextmanager
async def serving():
    """A server whose answers wait until the event is set."""
    release = asyncio.Event()

    async def application(scope, receive, send):
        await release.wait()
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    config = uvicorn.Config(application, port=0, http=WatchedProtocol, lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    task = asyncio.create_task(server.serve())
    while not server.started:  # noqa: ASYNC110 - it has no event
        await asyncio.sleep(0.01)
    try:
        yield server, server.servers[0].sockets[0].getsockname()[1], release
    finally:
        release.set()
        server.should_exit = True
        await task


async def connect(server, port, data):
    before = len(server.server_state.connections)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    while len(server.server_state.connections) == before:  # noqa: ASYNC110 - it has no event
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)
    return reader, writer


@pytest.mark.parametrize("sent", [b"", HEAD], ids=["nothing", "half a head"])
def test_who_never_sends_a_whole_head_is_cut_off(sent):
    async def run():
        async with serving() as (server, port, release):
            slow, slow_writer = await connect(server, port, sent)
            busy, busy_writer = await connect(server, port, HEAD + b"\r\n")
            laggards, connections = Laggards(), server.server_state.connections
            laggards.end(connections, 100.0)
            laggards.end(connections, 100.0 + HEAD_S)
            assert not slow.at_eof(), "not before its time"
            laggards.end(connections, 100.1 + HEAD_S)
            assert await asyncio.wait_for(slow.read(), 2) == b""
            release.set()
            assert (await asyncio.wait_for(busy.readline(), 2)).startswith(b"HTTP/1.1 204"), "it was being answered"
            for writer in (slow_writer, busy_writer):
                writer.close()

    asyncio.run(run())


def test_a_further_request_has_time_of_its_own():
    async def run():
        async with serving() as (server, port, release):
            release.set()
            reader, writer = await connect(server, port, b"")
            laggards, connections = Laggards(), server.server_state.connections
            laggards.end(connections, 100.0)
            writer.write(HEAD + b"\r\n")
            await reader.readuntil(b"\r\n\r\n")
            laggards.end(connections, 100.1 + HEAD_S)
            writer.write(HEAD + b"\r\n")
            assert (await reader.readline()).startswith(b"HTTP/1.1 204")
            writer.close()

    asyncio.run(run())


def test_the_kernel_asks_whether_the_client_is_still_there():
    async def run():
        async with serving() as (server, port, _):
            _, writer = await connect(server, port, HEAD)
            (connection,) = server.server_state.connections
            assert connection.transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            writer.close()

    asyncio.run(run())
