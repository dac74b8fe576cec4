"""The steps that the client's work is made of.

What is to be done is written once, as generators of steps (:mod:`deepnight.client.flows`); the synchronous and the
asynchronous client only perform them.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import httpx

from deepnight.client.errors import ApiError, seconds

T = TypeVar("T")

LONGEST_PAUSE_S = 30.0
BUSY = (429, 503)


@dataclass(frozen=True)
class Call:
    """One request; the flow is sent its :class:`httpx.Response`.

    Attributes:
        query: parameters of the query string.
        json: the body.
        form: makes the multipart fields anew for each attempt, since a file is read only once.
        headers: more headers.
        patience: seconds that the service itself may take, on top of the client's timeout.
        save: stream the body into this file.
    """

    method: str
    path: str
    query: Mapping[str, Any] = field(default_factory=dict)
    json: Any = None
    form: Callable[[], dict[str, Any]] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    patience: float = 0.0
    save: Path | None = None

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of httpx's ``build_request``."""
        body = {} if self.form is None else self.form()
        if self.json is not None:
            body["json"] = self.json
        query = {name: value for name, value in self.query.items() if value is not None}
        return {"method": self.method, "url": self.path, "params": query, "headers": dict(self.headers), **body}


@dataclass(frozen=True)
class Pause:
    """Wait for some seconds."""

    seconds: float


Flow = Generator[Call | Pause, Any, T]


def pause_before_retry(attempt: int, outcome: httpx.Response | httpx.TransportError) -> float | None:
    """Seconds to wait before the next attempt, or None when repeating would not help.

    Every request of this client may be repeated: predictions have no effects, uploads are recognised by their content,
    and jobs and comparisons carry an ``Idempotency-Key``.
    """
    backoff = min(0.25 * 2.0**attempt, LONGEST_PAUSE_S)
    if isinstance(outcome, httpx.TransportError):
        return None if isinstance(outcome, httpx.ReadTimeout | httpx.UnsupportedProtocol) else backoff
    if outcome.status_code not in BUSY:
        return None
    asked = seconds(outcome.headers.get("retry-after"))
    return backoff if asked is None else min(asked, LONGEST_PAUSE_S)


def retried(flow: Flow[T], retries: int) -> Flow[T]:
    """``flow`` with each call made up to ``retries`` times more where that helps, and refusals raised in it.

    Raises:
        ApiError: the service refused a call.
        httpx.TransportError: it could not be reached.
    """
    try:
        step = next(flow)
        while True:
            try:
                answer = (yield from _attempts(step, retries)) if isinstance(step, Call) else (yield step)
            except BaseException as error:
                step = flow.throw(error)
            else:
                step = flow.send(answer)
    except StopIteration as stop:
        value: T = stop.value
        return value


def _attempts(call: Call, retries: int) -> Flow[httpx.Response]:
    for attempt in count():
        outcome: httpx.Response | httpx.TransportError
        try:
            outcome = yield call
        except httpx.TransportError as error:
            outcome = error
        pause = pause_before_retry(attempt, outcome)
        if pause is None or attempt >= retries:
            break
        yield Pause(pause)
    if isinstance(outcome, httpx.TransportError):
        raise outcome
    if outcome.is_error:
        raise ApiError(outcome)
    return outcome
