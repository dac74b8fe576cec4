"""A queue behind TLS, with a client certificate asked for, through the whole of gateway's client and worker."""

import asyncio

import pytest
import redis

from tests.redis_servers import SECRET, SERVICE, Authority, encrypted, encrypted_sentinel, tls_binary
from tests.unit.workers.stack import Stack
from workers.connect import prompt, prompt_async

pytestmark = pytest.mark.skipif(tls_binary() is None, reason="no server with TLS: apt-get install redis-server")


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("tls"), "authority")


@pytest.fixture(scope="module")
def server(authority, tmp_path_factory):
    running = encrypted(tmp_path_factory.mktemp("server"), authority, tls_binary())
    yield running
    running.kill()


def url(server, authority, own=None):
    address = f"rediss://:{SECRET}@127.0.0.1:{server.port}/0?ssl_ca_certs={authority.file}"
    return address if own is None else f"{address}&ssl_certfile={own[0]}&ssl_keyfile={own[1]}"


def test_a_job_from_its_submission_to_its_end(server, authority, home):
    stack = Stack(home, redis_url=url(server, authority, authority.issue("client")))
    try:
        stack.start_worker()
        job = stack.submit("steps", parameters={"steps": 3})
        assert stack.wait(job.id).status == "succeeded"
        assert stack.run(stack.client.ping())
        assert stack.run(stack.client.take_token("k", 5)) == (True, 4.0)
    finally:
        stack.close()


def test_whoever_cannot_prove_a_name_is_refused(server, authority, tmp_path):
    other = Authority(tmp_path, "other")
    plain = f"redis://:{SECRET}@127.0.0.1:{server.port}/0"
    refused = [url(server, authority), url(server, authority, other.issue("client")), url(server, other), plain]
    for address in refused:
        with pytest.raises((redis.ConnectionError, redis.TimeoutError)):
            prompt(address).ping()

    with pytest.raises((redis.ConnectionError, redis.TimeoutError)):
        asyncio.run(ask(url(server, other)))
    assert asyncio.run(ask(url(server, authority, authority.issue("gateway"))))


def test_a_sentinel_behind_tls_leads_to_a_master_behind_tls(server, authority, tmp_path):
    sentinel = encrypted_sentinel(tmp_path, authority, tls_binary(), server)
    try:
        _, _, query = url(server, authority, authority.issue("client")).partition("?")
        address = f"rediss+sentinel://:{SECRET}@127.0.0.1:{sentinel.port}/{SERVICE}/0?{query}"
        assert prompt(address).set("through", "the sentinel")
        assert asyncio.run(ask(address))
        assert prompt(url(server, authority, authority.issue("client"))).get("through") == b"the sentinel"
        with pytest.raises((redis.ConnectionError, redis.TimeoutError)):
            prompt(f"redis+sentinel://:{SECRET}@127.0.0.1:{sentinel.port}/{SERVICE}/0").ping()
    finally:
        sentinel.kill()


async def ask(address):
    client = prompt_async(address, retries=0)
    try:
        return await client.ping()
    finally:
        await client.aclose()
