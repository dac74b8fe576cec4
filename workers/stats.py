"""What one look at the queue tells: counts, ages, workers and histograms, for ``/metrics`` and ``/readyz``."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import redis.asyncio
from rq.utils import utcparse

QUEUE = "jobs"
WORKER_SEEN_S = 30.0

WAIT_BOUNDS = ("0.1", "0.5", "1", "5", "15", "60", "300", "900", "3600")
DURATION_BOUNDS = ("1", "5", "15", "60", "300", "900", "3600", "10800", "21600")


@dataclass(frozen=True)
class Histogram:
    """A cumulative histogram in Prometheus' sense.

    Attributes:
        buckets: ``(upper bound, observations up to it)``, ascending, the last bound ``+Inf``.
        sum: of all observed values, in seconds.
    """

    buckets: list[tuple[str, float]]
    sum: float

    @property
    def count(self) -> float:
        """Number of observations."""
        return self.buckets[-1][1]


def empty(bounds: Sequence[str]) -> Histogram:
    """A histogram that has observed nothing."""
    return Histogram([(bound, 0.0) for bound in (*bounds, "+Inf")], 0.0)


@dataclass(frozen=True)
class QueueStats:
    """The state of the queue.

    Attributes:
        queue: its name.
        jobs: jobs kept, by ``(kind, status)``.
        oldest_queued_seconds: age of the oldest job that waits for a worker; 0 when none does.
        workers: workers with a heartbeat in the last 30 s, by ``busy`` and ``idle``.
        wait: seconds from submission to the first start, by kind, since the queue exists.
        duration: seconds from the first start to the final status, by ``(kind, status)``, since the queue exists.
        lost_runs: runs whose process died so that the job went back to the queue, by kind, since the queue exists.
        memory: bytes that Redis uses, and may use (0: as much as there is).
    """

    queue: str = QUEUE
    jobs: dict[tuple[str, str], int] = field(default_factory=dict)
    oldest_queued_seconds: float = 0.0
    workers: dict[str, int] = field(default_factory=lambda: {"busy": 0, "idle": 0})
    wait: dict[str, Histogram] = field(default_factory=dict)
    duration: dict[tuple[str, str], Histogram] = field(default_factory=dict)
    lost_runs: dict[str, int] = field(default_factory=dict)
    memory: tuple[int, int] = (0, 0)


def parse_counts(raw: Mapping[str, str]) -> dict[tuple[str, str], int]:
    """Counts from the fields ``kind|status``."""
    counts: dict[tuple[str, str], int] = {}
    for name, value in raw.items():
        kind, _, status = name.partition("|")
        counts[kind, status] = int(value)
    return counts


def parse_histograms(raw: Mapping[str, str]) -> tuple[dict[str, Histogram], dict[tuple[str, str], Histogram]]:
    """The wait and duration histograms from the fields ``name|labels...|bound`` and ``name|labels...|sum``."""
    series = {name.rpartition("|")[0] for name in raw}
    wait: dict[str, Histogram] = {}
    duration: dict[tuple[str, str], Histogram] = {}
    for name in sorted(series):
        which, *labels = name.split("|")
        bounds = (*(WAIT_BOUNDS if which == "wait" else DURATION_BOUNDS), "+Inf")
        total, buckets = 0.0, []
        for bound in bounds:
            total += float(raw.get(f"{name}|{bound}", 0))
            buckets.append((bound, total))
        histogram = Histogram(buckets, float(raw.get(f"{name}|sum", 0)))
        if which == "wait":
            wait[labels[0]] = histogram
        else:
            duration[labels[0], labels[1]] = histogram
    return wait, duration


async def read_stats(client: redis.asyncio.Redis) -> QueueStats:
    """Read everything in two round trips; ``client`` decodes responses."""
    async with client.pipeline(transaction=False) as pipe:
        pipe.hgetall("dn:counts")
        pipe.hgetall("dn:histograms")
        pipe.zrange("dn:queued", 0, 0, withscores=True)
        pipe.smembers("rq:workers")
        pipe.hgetall("dn:lost")
        pipe.info("memory")
        counts, histograms, oldest, names, lost, memory = await pipe.execute()
    async with client.pipeline(transaction=False) as pipe:
        for name in sorted(names):
            pipe.hmget(name, ["state", "last_heartbeat", "death"])
        states = await pipe.execute()
    now = time.time()
    workers = {"busy": 0, "idle": 0}
    for state, heartbeat, death in states:
        if heartbeat and not death and now - utcparse(heartbeat).timestamp() < WORKER_SEEN_S:
            workers["busy" if state == "busy" else "idle"] += 1
    wait, duration = parse_histograms(histograms)
    return QueueStats(
        jobs=parse_counts(counts),
        oldest_queued_seconds=max(0.0, now - float(oldest[0][1])) if oldest else 0.0,
        workers=workers,
        wait=wait,
        duration=duration,
        lost_runs={kind: int(count) for kind, count in lost.items()},
        memory=(int(memory["used_memory"]), int(memory.get("maxmemory", 0))),
    )
