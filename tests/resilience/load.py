"""Requests of every kind at once, each answer compared; what came of each request is kept."""

import asyncio
import io
import itertools
import random
import time
import uuid
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import httpx
import numpy as np

from tests.resilience.answers import METHODS, sha256

FINAL = ("succeeded", "failed", "cancelled")
TIMEOUT_S = 75  # beyond the service's own deadline of 60 s: it must answer, not the client give up
AGAIN_S = 0.3


@dataclass(frozen=True)
class Sample:
    """One request: when, and what came of it.

    Attributes:
        outcome: ``right``, ``wrong`` or ``failed``.
        why: the status or the exception of one that failed.
        retry: whether the answer said when to come again.
    """

    kind: str
    started: float
    ended: float
    outcome: str
    why: str = ""
    retry: bool = False
    text: str = ""

    @property
    def of_jobs(self):
        return self.kind.startswith("job")


@dataclass
class Accepted:
    """A job that was acknowledged, and the hash of the first result that it showed."""

    id: str
    question: object
    result: str | None = None


@dataclass
class Load:
    """Clients of every kind, at a moderate rate.

    Attributes:
        samples: every request so far.
        jobs: acknowledged jobs.
        uploads: acknowledged data sets, id to the hash of what was sent.
    """

    base_url: str
    questions: list
    job_questions: list
    pause_s: float = 0.1
    clients: int = 2
    submitters: int = 1
    seed: int = 0
    samples: list = field(default_factory=list)
    jobs: list = field(default_factory=list)
    uploads: dict = field(default_factory=dict)

    def __post_init__(self):
        self._numbers = itertools.count()
        self._stop = asyncio.Event()
        self._run = uuid.uuid4().hex[:8]

    @asynccontextmanager
    async def running(self):
        """Load while the block runs; requests that are under way at its end are waited for."""
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=self.base_url, timeout=TIMEOUT_S, limits=limits) as self._http:
            clients = [self._predicting(kind, i) for kind in METHODS for i in range(self.clients)]
            clients += [self._submitting() for _ in range(self.submitters)]
            tasks = [asyncio.create_task(client) for client in [*clients, self._uploading()]]
            try:
                yield self
            finally:
                self._stop.set()
                await asyncio.gather(*tasks)

    async def _pause(self, seconds):
        try:
            await asyncio.wait_for(self._stop.wait(), seconds)
        except TimeoutError:
            return

    async def _send(self, kind, method, path, *, check=lambda answer: True, **request):
        """Send one request and keep what came of it; its answer where that is right."""
        started = time.monotonic()
        try:
            response = await self._http.request(method, path, **request)
        except httpx.HTTPError as error:
            self.samples.append(Sample(kind, started, time.monotonic(), "failed", type(error).__name__))
            return None
        ended = time.monotonic()
        if not response.is_success:
            retry = "retry-after" in response.headers
            why, text = str(response.status_code), response.text[:300]
            self.samples.append(Sample(kind, started, ended, "failed", why, retry, text))
            return None
        answer = response.json()
        right = check(answer)
        text = "" if right else response.text[:300]
        self.samples.append(Sample(kind, started, ended, "right" if right else "wrong", text=text))
        return answer if right else None

    async def _predicting(self, kind, number):
        rng = random.Random(f"{self.seed} {kind} {number}")
        questions = [question for question in self.questions if question.kind == kind]
        while not self._stop.is_set():
            question = rng.choice(questions)
            await self._send(kind, "POST", question.path, json=question.body, check=question.right)
            await self._pause(rng.uniform(0, 2 * self.pause_s))

    async def _uploading(self):
        """Data sets of random vectors, each new; one that is not acknowledged is sent again."""
        rng = np.random.default_rng(self.seed)
        while not self._stop.is_set():
            data = _vectors(rng)
            expected = sha256(data)
            answer = await self._until_acknowledged(
                "upload",
                "/v1/datasets",
                files={"file": ("vectors.npz", data)},
                check=lambda a, e=expected: a["sha256"] == e,
            )
            if answer is not None:
                self.uploads[answer["id"]] = expected
            await self._pause(10 * self.pause_s)

    async def _until_acknowledged(self, kind, path, **request):
        while True:
            answer = await self._send(kind, "POST", path, **request)
            if answer is not None or self._stop.is_set():
                return answer
            await self._pause(AGAIN_S)

    async def _submitting(self):
        while not self._stop.is_set():
            number = next(self._numbers)
            question = self.job_questions[number % len(self.job_questions)]
            name = f"{self._run}-{number}"
            answer = await self._until_acknowledged(
                "job submission", "/v1/jobs", json=question.named(name), headers={"Idempotency-Key": name}
            )
            if answer is not None:
                self.jobs.append(accepted := Accepted(answer["id"], question))
                await self._follow(accepted)
            await self._pause(10 * self.pause_s)

    async def _follow(self, accepted):
        """Look at a job until it has ended, and at its result."""
        path = f"/v1/jobs/{accepted.id}"
        while not self._stop.is_set():
            job = await self._send("job look", "GET", path, params={"wait": 5})
            if job is None:
                await self._pause(AGAIN_S)
            elif job["status"] in FINAL:
                break
        else:
            return
        if job["status"] != "succeeded":
            return
        result = await self._send(
            "job result", "GET", f"{path}/result", check=lambda result: accepted.question.right(job, result)
        )
        accepted.result = None if result is None else fingerprint(job, result)


def fingerprint(job, result):
    """What must never change about a job that has succeeded."""
    return sha256(repr((job["finished_at"], job["attempts"], job["artifacts"], result)).encode())


def _vectors(rng):
    buffer = io.BytesIO()
    np.savez(buffer, x=rng.normal(size=(40, 8)).astype(np.float32), y=np.arange(40) % 4)
    return buffer.getvalue()
