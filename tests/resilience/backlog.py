"""Ten thousand jobs that wait: how fast they are taken, what they cost, whether the service stays responsive."""

import asyncio
import itertools
import tempfile
import time
from pathlib import Path

import httpx
import redis

from tests.contract.examples import example_request
from tests.e2e.stack import Stack
from tests.resilience.trial import Trial, quantiles
from workers.valkey import EmbeddedValkey

COUNT = 10_000
CLIENTS = 16
LOOKS = 20
LISTING_S = 1.0
BYTES_A_JOB = 16 << 10
SETTLED_S = 60
SIDE = {"points": [[0.0, 0.0], [1.0, 0.0]]}
JOB = {"kind": "predict", "model": "robust-ot", "parameters": {"request": {"a": SIDE, "b": SIDE}}}


def ten_thousand_jobs(registry, count=COUNT):
    """Queue them all, look at them, cancel them all; a worker takes jobs all the while."""
    with tempfile.TemporaryDirectory() as folder:
        stack = Stack(Path(folder) / "home", concurrent_jobs=count + 100).start()
        try:
            stack.wait_ready()
            return _measure(stack, registry, count)
        finally:
            stack.stop()
            assert stack.gone(10) == []


def _measure(stack, registry, count):
    memory = redis.Redis.from_url(EmbeddedValkey(stack.home).url)
    used = memory.info("memory")["used_memory"]
    started = time.monotonic()
    answers = asyncio.run(_all(stack, [("POST", "/v1/jobs", JOB)] * count))
    queued_s = time.monotonic() - started
    bytes_a_job = (memory.info("memory")["used_memory"] - used) / count
    ids = [answer.json()["id"] for answer in answers if answer.status_code == 202]
    broken = [f"{count - len(ids)} submissions were refused"] if len(ids) != count else []
    with stack.client() as api:
        listing = _looks(api, "/v1/jobs")
        running = _looks(api, "/v1/jobs?status=running")
        metrics = _looks(api, "/metrics")
        path, body = example_request(registry["robust-ot"], registry["robust-ot"].shipped())
        predicting = [_timed(api, "POST", path, json=body) for _ in range(LOOKS)]
        worked = _finished(api)
        started = time.monotonic()
        answers = asyncio.run(_all(stack, [("DELETE", f"/v1/jobs/{job}", None) for job in ids]))
        cancelled_s = time.monotonic() - started
        broken += [f"cancelling answered {a.status_code}" for a in answers if a.status_code not in (200, 202)]
        broken += _not_final(api, count)
    broken += [f"{memory.llen('rq:queue:jobs')} jobs are left in the queue"] if memory.llen("rq:queue:jobs") else []
    broken += [f"a listing took {max(listing):.1f} s"] if max(listing) > LISTING_S else []
    broken += [f"{bytes_a_job:.0f} bytes a job"] if bytes_a_job > BYTES_A_JOB else []
    memory.close()
    measured = (
        f"{count / queued_s:.0f} jobs/s taken, {bytes_a_job / 1024:.1f} KiB each in Valkey; list {quantiles(listing)}, "
        f"list of the running {quantiles(running)}, `/metrics` {quantiles(metrics)}, a prediction "
        f"{quantiles(predicting)}; {worked} ran meanwhile, {count / cancelled_s:.0f} cancelled/s"
    )
    return Trial(f"{count:,} queued jobs", "submitted by 16 clients, listed, all cancelled", measured, broken)


async def _all(stack, requests):
    turns, answers = iter(requests), []

    async def client(http):
        for method, path, body in turns:
            answers.append(await http.request(method, path, json=body))

    async with httpx.AsyncClient(base_url=stack.base_url, timeout=60) as http:
        await asyncio.gather(*(client(http) for _ in range(CLIENTS)))
    return answers


def _timed(api, method, path, **request):
    started = time.monotonic()
    api.request(method, path, **request).raise_for_status()
    return time.monotonic() - started


def _looks(api, path):
    return [_timed(api, "GET", path) for _ in range(LOOKS)]


def _finished(api):
    return len(api.get("/v1/jobs", params={"status": "succeeded", "limit": 1000}).json()["data"])


def _not_final(api, count):
    """Jobs that have not ended a while after they were cancelled, and whether any is missing."""
    until = time.monotonic() + SETTLED_S
    while True:
        jobs = list(_listed(api))
        waiting = [job["id"] for job in jobs if job["status"] in ("queued", "running")]
        if not waiting or time.monotonic() > until:
            break
        time.sleep(1)
    odd = [job["id"] for job in jobs if job["status"] not in ("succeeded", "cancelled")]
    return ([f"{len(odd)} jobs did not end, {odd[:3]} ..."] if odd else []) + (
        [f"{count - len(jobs)} jobs are missing"] if len(jobs) != count else []
    )


def _listed(api):
    after = None
    for _ in itertools.count():
        page = api.get("/v1/jobs", params={"limit": 1000} | ({"after": after} if after else {})).json()
        yield from page["data"]
        if not page["has_more"]:
            return
        after = page["data"][-1]["id"]
