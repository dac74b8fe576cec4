"""Jobs: submit, watch, read."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from deepnight.client.answers import Dataset, Job, Model
from deepnight.client.calls import Call, Flow, Pause
from deepnight.client.errors import JobFailedError
from deepnight.client.flows.paging import PAGE, id_of, listed, once
from deepnight.client.progress import job_bar, wanted

if TYPE_CHECKING:
    import pandas as pd

LONG_POLL_S = 20.0
SHORT_POLL_S = 1.0


def submit(
    kind: str,
    *,
    model: str | Model | None = None,
    dataset: str | Dataset | None = None,
    parameters: Mapping[str, Any] | None = None,
    seed: int | None = None,
    priority: Literal["low", "normal", "high"] = "normal",
    labels: Mapping[str, str] | None = None,
    idempotency_key: str | None = None,
) -> Flow[Job]:
    """Queue a job.

    Args:
        labels: notes of yours, shown with the job.
        idempotency_key: a repetition with the same key is the same job; by default each call is a job of its own.
    """
    body = {
        "kind": kind,
        "model": model and id_of(model),
        "dataset": dataset and id_of(dataset),
        "parameters": dict(parameters or {}),
        "seed": seed,
        "priority": priority,
        "labels": dict(labels or {}),
    }
    response = yield Call("POST", "/v1/jobs", json=body, headers=once(idempotency_key))
    return Job.read(response.json())


def job(job_id: str) -> Flow[Job]:
    """A job as it is now."""
    response = yield Call("GET", f"/v1/jobs/{job_id}")
    return Job.read(response.json())


def jobs(*, status: str | None = None, kind: str | None = None) -> Flow[list[Job]]:
    """Your jobs, the newest first."""
    return [Job.read(row) for row in (yield from listed("/v1/jobs", status=status, kind=kind))]


def cancel(job: str | Job) -> Flow[Job]:
    """Cancel a job; one that has ended stays as it is."""
    response = yield Call("POST", f"/v1/jobs/{id_of(job)}/cancel")
    return Job.read(response.json())


def wait(job: str | Job, *, timeout: float | None = None, progress: bool | None = None) -> Flow[Job]:
    """Wait until a job has succeeded.

    Args:
        timeout: seconds to wait at most.
        progress: show a bar; None shows one on a terminal.

    Raises:
        JobFailedError: it failed or was cancelled.
        TimeoutError: it has not ended in time; it goes on.
    """
    until = None if timeout is None else time.monotonic() + timeout
    with job_bar(progress) as tell:
        while True:
            left = LONG_POLL_S if until is None else until - time.monotonic()
            poll = max(0.0, min(left, SHORT_POLL_S if wanted(progress) else LONG_POLL_S))
            response = yield Call("GET", f"/v1/jobs/{id_of(job)}", {"wait": round(poll, 3)}, patience=poll)
            now = Job.read(response.json())
            tell(now)
            if now.status == "succeeded":
                return now
            if now.final:
                raise JobFailedError(now)
            if left <= 0:
                raise TimeoutError(f"{now.id} has not ended after {timeout:g} s")
            yield Pause(0)


def result(job: str | Job, **query: str | int | bool) -> Flow[dict[str, Any]]:
    """What a job found; ``offset``, ``limit`` and the kind's filters page its long list."""
    response = yield Call("GET", f"/v1/jobs/{id_of(job)}/result", _plain(query))
    answer: dict[str, Any] = response.json()
    return answer


def frame(job: str | Job, **query: str | int | bool) -> Flow[pd.DataFrame]:
    """The long list of a job's result, all of it, as a pandas data frame; ``query`` filters as the kind allows.

    Raises:
        ImportError: pandas is not installed.
        ValueError: the result holds no list.
    """
    import pandas as pd

    rows: list[dict[str, Any]] = []
    while True:
        page = yield from result(job, offset=len(rows), limit=PAGE, **query)
        lists = [value for value in page.values() if isinstance(value, list) and value and isinstance(value[0], dict)]
        listed = max(lists, key=len, default=[])
        if not rows and not listed:
            raise ValueError("the result holds no list")
        rows += listed
        if not page.get("has_more"):
            return pd.DataFrame(rows)


def download(job: str | Job, artifact: str, to: str | Path = ".") -> Flow[Path]:
    """Save a job's artifact in the folder or under the name ``to``; where it is now."""
    target = Path(to) / artifact if Path(to).is_dir() else Path(to)
    yield Call("GET", f"/v1/jobs/{id_of(job)}/artifacts/{artifact}", save=target)
    return target


def _plain(query: Mapping[str, str | int | bool]) -> dict[str, Any]:
    return {name: str(value).lower() if isinstance(value, bool) else value for name, value in query.items()}
