"""No space on the disk, no memory in Redis, a Redis that says nothing: under load, and gone again after a while."""

import asyncio
import contextlib
import subprocess
import tempfile
import time
from pathlib import Path

import redis

from tests.e2e.stack import Stack
from tests.resilience.answers import ask_beforehand
from tests.resilience.outcome import under_load
from tests.resilience.parts import processes
from tests.resilience.trial import NotPossible, of
from workers.valkey import EmbeddedValkey

CALM_S = 4.0
FAULT_S = 12.0
SILENT_S = 20.0
RECOVERY_S = 60.0
DISK_BYTES = 400 << 20
MISSING_BYTES = 64 << 10


class Window:
    """The time of a fault; requests that touch it may be refused as the documentation says."""

    def __init__(self, allowed):
        self._allowed = allowed
        self._begin, self._end = float("inf"), float("inf")

    def open(self):
        self._begin = time.monotonic()

    def close(self):
        self._end = time.monotonic()

    def explain(self, sample):
        inside = sample.ended >= self._begin and sample.started <= self._end
        return "refused" if inside and sample.retry and self._allowed(sample) else "none"


async def _until_answered(stack, path):
    """Seconds until ``path`` answers 200."""
    started = time.monotonic()
    with stack.client() as api:
        while (await asyncio.to_thread(api.get, path)).status_code != 200:
            if time.monotonic() > started + RECOVERY_S:
                raise TimeoutError(path)
            await asyncio.sleep(0.1)
    return time.monotonic() - started


async def _refusal(stack, job):
    """Submit a job, which must be refused: seconds until it was, and what is wrong with the answer."""
    started = time.monotonic()
    with stack.client() as api:
        answer = await asyncio.to_thread(api.post, "/v1/jobs", json=job.spec)
    told = answer.status_code == 503 and "retry-after" in answer.headers
    return time.monotonic() - started, [] if told else [f"a job was answered with {answer.status_code}"]


def full_disk():
    """The state folder on a small file system of its own, which is filled and emptied again."""
    with tempfile.TemporaryDirectory() as folder, _small_disk(Path(folder)) as disk:
        stack = Stack(disk / "home").start().wait_ready()
        try:
            with stack.client() as api:
                asked = ask_beforehand(api)
            return _fill_under_load(stack, asked, disk)
        finally:
            stack.stop()
            assert stack.gone(10) == []


def _fill_under_load(stack, asked, disk):
    # A full disk refuses uploads, and stops the queue, which can no longer keep its promise.
    window = Window(
        lambda sample: (sample.kind, sample.why) == ("upload", "507") or (sample.of_jobs and sample.why == "503")
    )
    seconds = []

    async def faults(_):
        await asyncio.sleep(CALM_S)
        window.open()
        filler = disk / "filler"
        await asyncio.to_thread(_fill, filler)
        await asyncio.sleep(FAULT_S)
        filler.unlink()
        seconds.append(await _until_answered(stack, "/v1/jobs"))
        window.close()
        await asyncio.sleep(CALM_S)

    def excuse(job):
        return job["status"] == "failed" and job["error"]["type"].endswith(":store-full")

    outcome = under_load(stack, asked, "disk full", faults, explain=window.explain, excuse=excuse)
    return of(
        outcome, f"state folder full for {FAULT_S:.0f} s", f"jobs taken again {seconds[0]:.1f} s after there is room"
    )


def _fill(path):
    """Take all space that is there, to the last block."""
    with path.open("wb", buffering=0) as file:
        for size in (1 << 20, 4096):
            with contextlib.suppress(OSError):
                while True:
                    file.write(bytes(size))


@contextlib.contextmanager
def _small_disk(folder):
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        raise NotPossible(f"a file system of its own needs root: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def full_redis(stack, asked):
    """No memory for the queue: it has more than it may have, and evicts nothing."""
    window = Window(lambda sample: sample.of_jobs and sample.why == "503")
    seconds, broken = [], []

    async def faults(_):
        client = redis.Redis.from_url(EmbeddedValkey(stack.home).url)
        await asyncio.sleep(CALM_S)
        window.open()
        client.config_set("maxmemory", client.info("memory")["used_memory"] - MISSING_BYTES)
        broken.extend((await _refusal(stack, asked[1][0]))[1])
        await asyncio.sleep(FAULT_S)
        client.config_set("maxmemory", 0)
        seconds.append(await _until_answered(stack, "/v1/jobs"))
        window.close()
        client.close()
        await asyncio.sleep(CALM_S)

    outcome = under_load(stack, asked, "Redis at maxmemory", faults, explain=window.explain, submitters=2)
    done = f"`maxmemory` {MISSING_BYTES >> 10} KiB below what is used, `noeviction`, for {FAULT_S:.0f} s"
    return of(outcome, done, f"a job is refused; looked at again {seconds[0]:.1f} s after it is raised", broken)


def silent_redis(stack, asked):
    """The queue's connections stand, and nothing answers."""
    window = Window(lambda sample: sample.of_jobs and sample.why == "503")
    seconds, broken = [], []

    async def faults(_):
        (server,) = processes(stack, "Redis")
        await asyncio.sleep(CALM_S)
        window.open()
        server.suspend()
        refused, wrong = await _refusal(stack, asked[1][0])
        await asyncio.sleep(max(0.0, SILENT_S - refused))
        server.resume()
        seconds.append(refused)
        broken.extend(wrong)
        seconds.append(await _until_answered(stack, "/v1/jobs"))
        window.close()
        await asyncio.sleep(CALM_S)

    outcome = under_load(stack, asked, "Redis silent", faults, explain=window.explain, submitters=2)
    done = f"stopped (SIGSTOP) for {SILENT_S:.0f} s, or until it refused"
    measured = f"a job is refused after {seconds[0]:.1f} s, taken again {seconds[1]:.1f} s after it goes on"
    return of(outcome, done, measured, broken)
