"""What the client raises. Connection failures and timeouts stay httpx's own exceptions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import httpx

    from deepnight.client.answers import Job


@dataclass(frozen=True)
class FieldError:
    """One offending field of a request: a JSON pointer and what is wrong with it."""

    field: str
    detail: str


class ApiError(Exception):
    """The service refused a request (RFC 9457).

    Attributes:
        status: the HTTP status.
        title: what the status means.
        detail: what was wrong, for a person.
        errors: the offending fields.
        request_id: the id under which the service logged the request.
        retry_after: seconds after which trying again makes sense, where the service says so.
    """

    def __init__(self, response: httpx.Response) -> None:
        problem = _problem(response)
        self.status = response.status_code
        self.title = str(problem.get("title") or response.reason_phrase)
        self.detail = str(problem.get("detail") or response.text[:500])
        self.errors = [FieldError(str(e.get("field", "")), str(e.get("detail", ""))) for e in problem.get("errors", ())]
        self.request_id = response.headers.get("x-request-id", "")
        self.retry_after = seconds(response.headers.get("retry-after"))
        fields = "; ".join(f"{error.field}: {error.detail}" for error in self.errors[:5])
        super().__init__(f"{self.status} {self.title}: {self.detail}" + (f" ({fields})" if fields else ""))


class JobFailedError(Exception):
    """A job that was waited for did not succeed.

    Attributes:
        job: the job as it ended; its ``error`` says why.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        reason = (job.error or {}).get("detail", "")
        super().__init__(f"{job.id} ({job.kind}) {job.status}" + (f": {reason}" if reason else ""))


def seconds(header: str | None) -> float | None:
    """A ``Retry-After`` header in seconds, or None where it is missing or a date."""
    try:
        return None if header is None else max(0.0, float(header))
    except ValueError:
        return None


def _problem(response: httpx.Response) -> dict[str, Any]:
    try:
        found = response.json()
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
