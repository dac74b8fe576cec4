"""Kills under load, how long each part took to be of use again, and which failed requests a kill explains."""

import asyncio
import random
import time
from contextlib import suppress
from dataclasses import dataclass

import httpx

from tests.resilience.answers import Question
from tests.resilience.load import FINAL, TIMEOUT_S
from tests.resilience.parts import Victim, kill, processes, runs

ROLES = ("job process", "worker", "replica", "controller", "Redis", "gateway")
LOOK_S = 0.05
RECOVERY_S = 120
SLACK_S = 1.0


@dataclass
class Fault:
    """A kill and when what it took away was back (``time.monotonic``); None where it never was."""

    victim: Victim
    back_at: float | None = None

    @property
    def role(self):
        return self.victim.role

    @property
    def seconds(self):
        return None if self.back_at is None else self.back_at - self.victim.at

    def covers(self, sample):
        """Whether a request had to do with the time between kill and recovery."""
        end = self.victim.at + RECOVERY_S if self.back_at is None else self.back_at
        return sample.started <= end + SLACK_S and sample.ended >= self.victim.at


async def _until(condition):
    """Look until ``condition``, a coroutine function, holds; the caller bounds the time."""
    while not await condition():  # noqa: ASYNC110 - other processes change what it looks at
        await asyncio.sleep(LOOK_S)


async def _right(request, check=lambda answer: True):
    try:
        response = await request
    except httpx.HTTPError:
        return False
    return response.status_code == 200 and check(response.json())


class Injector:
    """Kills one process of a role and finds out when the service has recovered.

    Attributes:
        faults: every kill so far.
    """

    def __init__(self, stack, probe: Question, seed=0):
        self.stack = stack
        self.faults = []
        self._probe = probe
        self._rng = random.Random(seed)
        self._waiting = set()

    async def inject(self, role):
        """Kill, and wait for recovery; None where there was nothing to kill."""
        if role in ("worker", "job process"):
            with suppress(TimeoutError):
                await asyncio.wait_for(_until(lambda: self._there("job process")), RECOVERY_S)
            await asyncio.sleep(self._rng.uniform(0, 4))
        victim = await asyncio.to_thread(kill, self.stack, role)
        if victim is None:
            return None
        fault = Fault(victim)
        self.faults.append(fault)
        with suppress(TimeoutError):
            fault.back_at = await asyncio.wait_for(self._recovered(victim), RECOVERY_S)
        return fault

    async def _there(self, role):
        return bool(await asyncio.to_thread(processes, self.stack, role))

    def start(self, role):
        """The same without waiting."""
        task = asyncio.create_task(self.inject(role))
        self._waiting.add(task)
        task.add_done_callback(self._waiting.discard)

    async def settle(self):
        """Wait for all recoveries."""
        await asyncio.gather(*self._waiting)

    def deaths_of(self, job_id):
        """How often the job's process was killed here, alone or with its worker."""
        return sum(fault.victim.job == job_id for fault in self.faults)

    async def _recovered(self, victim):
        """When the part was of use again: a lost job runs again, a request of the kind that needs it is right."""
        async with httpx.AsyncClient(base_url=self.stack.base_url, timeout=TIMEOUT_S) as http:
            if victim.job is not None:
                await _until(lambda: self._runs_again(http, victim.job))
            elif victim.role in ("worker", "job process", "controller"):
                role = "controller" if victim.role == "controller" else "worker"
                await _until(lambda: self._there(role))
            if victim.role == "Redis":
                await _until(lambda: _right(http.get("/v1/jobs", params={"limit": 1})))
            if victim.role in ("replica", "controller", "gateway"):
                probe = self._probe
                await _until(lambda: _right(http.post(probe.path, json=probe.body), probe.right))
        return time.monotonic()

    async def _job(self, http, job_id):
        """The job's record, or nothing while it cannot be read."""
        try:
            response = await http.get(f"/v1/jobs/{job_id}")
        except httpx.HTTPError:
            return {}
        return response.json() if response.status_code == 200 else {}

    async def _runs_again(self, http, job_id):
        """Whether the job has a process again and says that it runs, or has ended."""
        status = (await self._job(http, job_id)).get("status")
        return status in FINAL or (status == "running" and await asyncio.to_thread(runs, self.stack, job_id))


def explanation(sample, faults):
    """Why a request failed: ``in flight`` in the killed process, ``refused`` while a part was down, or ``none``.

    Only the gateway's own death may break a connection. While it starts again, nobody listens. While Redis is away, the
    routes of jobs say when to come again. Nothing else may fail: a call whose replica dies is made again.
    """
    for fault in faults:
        if not fault.covers(sample):
            continue
        if fault.role == "gateway" and not sample.why.isdigit():
            # What began while it was being killed or before was in it; what began later met a closed port.
            return "in flight" if sample.started <= fault.victim.gone_at else "refused"
        if fault.role == "Redis" and sample.of_jobs and sample.why == "503" and sample.retry:
            return "refused"
    return "none"
