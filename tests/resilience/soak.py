"""An hour of light load: the memory of every part must not grow."""

import asyncio
import time

import numpy as np
import psutil

from tests.resilience.outcome import under_load
from tests.resilience.parts import processes
from tests.resilience.trial import of

ROLES = ("gateway", "replica", "controller", "worker", "Redis", "supervisor")
EVERY_S = 5.0
WARM_SHARE = 0.25
FLAT_SHARE, FLAT_BYTES = 0.05, 8 << 20


def soak(stack, asked, minutes):
    """Sample the resident memory of each part, which must not grow in the last three quarters of the time."""
    sizes = {role: [] for role in ROLES}

    async def look(_):
        started = time.monotonic()
        while (now := time.monotonic() - started) < 60 * minutes:
            for role in ROLES:
                sizes[role].append((now, await asyncio.to_thread(_memory, stack, role)))
            await asyncio.sleep(EVERY_S)

    outcome = under_load(stack, asked, "soak", look, pause_s=1.0, clients=1)
    slopes, broken = [], []
    for role, points in sizes.items():
        first, last, slope = _trend(np.array(points), minutes)
        slopes.append(f"{role} {last / 2**20:.0f} MiB, {slope / 2**20:+.1f} MiB/h")
        if last - first > max(FLAT_SHARE * first, FLAT_BYTES):
            broken.append(f"{role} grew from {first / 2**20:.0f} to {last / 2**20:.0f} MiB")
    return of(outcome, f"{minutes:g} minutes of mixed load", ", ".join(slopes), broken)


def _trend(points, minutes):
    """First and last level (of a line by least squares) and slope in bytes an hour, without the time of warming up."""
    points = points[points[:, 0] > 60 * minutes * WARM_SHARE]
    slope, start = np.polyfit(points[:, 0], points[:, 1], 1)
    return start + slope * points[0, 0], start + slope * points[-1, 0], slope * 3600


def _memory(stack, role):
    if role == "supervisor":
        return psutil.Process(stack.process.pid).memory_info().rss
    return sum(process.memory_info().rss for process in processes(stack, role))
