"""Metrics that all processes share through Redis, so that a scrape of any gateway tells about every one of them.

What only grows (counters, the parts of histograms) is added up in the hash ``dn:metrics``: each process sends by how
much its own numbers grew, so that the sums outlive every process and are the same wherever they are read. What is
true only of a living process (its memory, its requests in flight) stands in ``dn:processes`` with the time of its last
sign of life, and counts for :data:`ALIVE_S` seconds after it.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, cast

import redis
import redis.asyncio

log = logging.getLogger("deepnight.metrics")

EVERY_S = 2.0
ALIVE_S = 15.0
MOST_SERIES = 50_000
CPU_SECONDS, STARTS = "deepnight_process_cpu_seconds_total", "deepnight_process_starts_total"
_TICKS = os.sysconf("SC_CLK_TCK")

SHARE = f"""
-- process, number of its message, its state, then series and their growth. Adds each message once, however often it is
-- sent. A hash that is full takes growth of the series it has, and no new ones. Times are Redis' own: hosts' differ.
local now = tonumber(redis.call('TIME')[1])
redis.call('HSET', 'dn:processes', ARGV[1], now .. ' ' .. ARGV[3])
local last = 'dn:shared:' .. ARGV[1]
if tonumber(redis.call('GET', last) or 0) >= tonumber(ARGV[2]) then return 0 end
redis.call('SET', last, ARGV[2], 'EX', 3600)
local full = redis.call('HLEN', 'dn:metrics') >= {MOST_SERIES}
for i = 4, #ARGV, 2 do
  if not full or redis.call('HEXISTS', 'dn:metrics', ARGV[i]) == 1 then
    redis.call('HINCRBYFLOAT', 'dn:metrics', ARGV[i], ARGV[i + 1])
  end
end
local processes = redis.call('HGETALL', 'dn:processes')
for i = 2, #processes, 2 do
  local at = tonumber(string.match(processes[i], '^%d+'))
  if at < now - 3600 then redis.call('HDEL', 'dn:processes', processes[i - 1]) end
end
return 1
"""


def series(name: str, labels: Mapping[str, str]) -> str:
    """One time series as a field of the hash."""
    return _series(name, tuple(labels.items()))


@lru_cache(MOST_SERIES)  # the same few thousand every other second
def _series(name: str, labels: tuple[tuple[str, str], ...]) -> str:
    return json.dumps([name, dict(sorted(labels))], separators=(",", ":"))


@lru_cache(MOST_SERIES)
def parse_series(text: str) -> tuple[str, Mapping[str, str]]:
    """Name and labels of a field of the hash."""
    name, labels = json.loads(text)
    return name, labels


@dataclass(frozen=True)
class Usage:
    """What a process has used: seconds of processor time since its start, bytes of memory now."""

    cpu_seconds: float
    resident_bytes: int


def usage(pid: int) -> Usage | None:
    """Usage of the process ``pid``; None where it is gone or the system has no ``/proc``."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return Usage((int(fields[11]) + int(fields[12])) / _TICKS, int(fields[21]) * resource.getpagesize())


@dataclass(frozen=True)
class Shared:
    """What every process has shared.

    Attributes:
        totals: sums by series.
        processes: states of the living ones, by process.
    """

    totals: dict[str, float] = field(default_factory=dict)
    processes: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass
class Growth:
    """Numbers that only grow, and how much of them was sent; a message that may have arrived is repeated as it was."""

    process: str = field(default_factory=lambda: uuid.uuid4().hex)
    sent: dict[str, float] = field(default_factory=dict)
    _number: int = 0
    _message: dict[str, float] | None = None

    def message(self, numbers: Mapping[str, float], state: Mapping[str, Any]) -> list[Any]:
        """Arguments of :data:`SHARE` for the growth of ``numbers`` since the last message that arrived."""
        if self._message is None:
            self._number += 1
            grown = {name: value - self.sent.get(name, 0.0) for name, value in numbers.items()}
            self._message = {name: growth for name, growth in grown.items() if growth > 0}
        pairs = [part for name, growth in self._message.items() for part in (name, repr(growth))]
        return [self.process, self._number, json.dumps(state), *pairs]

    def arrived(self) -> dict[str, float]:
        """The last message was taken; what it added."""
        added, self._message = self._message or {}, None
        for name, growth in added.items():
            self.sent[name] = self.sent.get(name, 0.0) + growth
        return added


async def send(client: redis.asyncio.Redis, message: list[Any]) -> None:
    """Send a message."""
    await cast(Any, client).eval(SHARE, 0, *message)


async def exchange(client: redis.asyncio.Redis, message: list[Any]) -> Shared:
    """Send a message and read what everybody shared; ``client`` decodes responses."""
    async with client.pipeline(transaction=True) as pipe:
        pipe.eval(SHARE, 0, *message)
        pipe.hgetall("dn:metrics")
        pipe.hgetall("dn:processes")
        pipe.time()
        _, totals, processes, (now, _) = await pipe.execute()
    seen = {name: value.partition(" ") for name, value in processes.items()}
    return Shared(
        {name: float(value) for name, value in totals.items()},
        {name: json.loads(state) for name, (at, _, state) in seen.items() if now - int(at) < ALIVE_S},
    )


async def leave(client: redis.asyncio.Redis, process: str) -> None:
    """Take a process off those that live."""
    await cast(Any, client).hdel("dn:processes", process)


class WorkerSharing:
    """Shares what a worker and the process of its job use, at most every two seconds.

    Args:
        client: a client that decodes responses.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client
        self._growth = Growth()
        self._job = Growth()
        self._jobs_started = 0
        self._job_cpu = 0.0
        self._next = 0.0

    def job_started(self) -> None:
        """The worker has started the process of a job."""
        self._jobs_started += 1
        self._next = 0.0

    def share(self, job_pid: int | None) -> None:
        """Send what has grown; ``job_pid`` is the process of the job that runs."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + EVERY_S
        own, job = usage(os.getpid()), usage(job_pid) if job_pid else None
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        # A process that has just ended may be counted in neither place for a moment.
        self._job_cpu = max(self._job_cpu, ended.ru_utime + ended.ru_stime + (job.cpu_seconds if job else 0.0))
        numbers = {
            series(STARTS, {"role": "worker"}): 1.0,
            series(STARTS, {"role": "job"}): float(self._jobs_started),
            series(CPU_SECONDS, {"role": "worker"}): own.cpu_seconds if own else time.process_time(),
            series(CPU_SECONDS, {"role": "job"}): self._job_cpu,
        }
        self._send(self._growth, numbers, {"role": "worker", "resident_bytes": own.resident_bytes if own else 0})
        if job is not None:
            self._send(self._job, {}, {"role": "job", "resident_bytes": job.resident_bytes})

    def end(self) -> None:
        """The worker is about to end."""
        self._next = 0.0
        self.share(None)
        self._forget(self._growth.process)

    def job_ended(self) -> None:
        """The process of the worker's job is gone."""
        self._forget(self._job.process)

    def _send(self, growth: Growth, numbers: Mapping[str, float], state: Mapping[str, Any]) -> None:
        try:
            cast(Any, self._redis).eval(SHARE, 0, *growth.message(numbers, state))
        except redis.RedisError as error:
            log.warning("metrics wait for Redis: %s", error)  # a job is worth more than its metrics
        else:
            growth.arrived()

    def _forget(self, process: str) -> None:
        with suppress(redis.RedisError):
            self._redis.hdel("dn:processes", process)
