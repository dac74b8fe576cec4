"""What the queue refuses or cannot do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import redis

from workers.connect import refuses


class QueueUnavailableError(RuntimeError):
    """Redis cannot be reached or cannot store anything."""


class IdempotencyConflictError(ValueError):
    """The idempotency key was used before with another request."""


class TooManyJobsError(RuntimeError):
    """The owner has as many open jobs as allowed."""


class UnknownJobError(KeyError):
    """There is no such job."""


class UnknownKindError(KeyError):
    """There is no such kind of job."""


class JobSpecError(ValueError):
    """A job that cannot be queued.

    Attributes:
        field: JSON pointer of the offending field of the request, e.g. ``/parameters/preset``.
    """

    def __init__(self, field: str, detail: str) -> None:
        super().__init__(detail)
        self.field = field
        self.detail = detail


@contextmanager
def queue_errors() -> Iterator[None]:
    """Turn a Redis that is away, full or read-only into :class:`QueueUnavailableError`."""
    try:
        yield
    except (
        redis.ConnectionError,
        redis.TimeoutError,
        redis.exceptions.OutOfMemoryError,
        redis.exceptions.NoScriptError,  # it restarted twice within one call
        OSError,
    ) as error:
        raise QueueUnavailableError("the job queue cannot be reached") from error
    except redis.ResponseError as error:
        if refuses(error):
            raise QueueUnavailableError("the job queue cannot store anything now") from error
        raise
