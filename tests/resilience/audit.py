"""What became of everything that was acknowledged, from the interface alone."""

import time
from dataclasses import dataclass, field

from deepnight.client.sse import EventReader
from tests.resilience.answers import sha256
from tests.resilience.load import FINAL, fingerprint

STUCK_S = 240
MAX_RUNS = 3


@dataclass
class Audit:
    """Counts of broken promises, each with what was seen."""

    jobs: int = 0
    uploads: int = 0
    given_up: int = 0
    lost: list = field(default_factory=list)
    stuck: list = field(default_factory=list)
    failed: list = field(default_factory=list)
    doubled: list = field(default_factory=list)
    wrong: list = field(default_factory=list)
    uploads_lost: list = field(default_factory=list)

    @property
    def broken(self):
        return [*self.lost, *self.stuck, *self.failed, *self.doubled, *self.wrong, *self.uploads_lost]


def audit(api, load, deaths_of, excuse):
    """Look at every acknowledged job and data set once all is calm; jobs have ``STUCK_S`` to end.

    Args:
        deaths_of: how often a job's process was killed, by its id.
        excuse: whether a job may have failed, by its record.
    """
    found = Audit(jobs=len(load.jobs), uploads=len(load.uploads))
    until = time.monotonic() + STUCK_S
    for accepted in load.jobs:
        _look_at_job(api, accepted, deaths_of(accepted.id), excuse, until, found)
    _look_for_repetitions(api, load, found)
    for identifier, expected in load.uploads.items():
        content = api.get(f"/v1/datasets/{identifier}/content")
        if content.status_code != 200 or sha256(content.content) != expected:
            found.uploads_lost.append(f"{identifier}: {content.status_code}")
    return found


def _look_at_job(api, accepted, deaths, excuse, until, found):
    job = api.get(f"/v1/jobs/{accepted.id}").json()
    while job.get("status") in ("queued", "running") and time.monotonic() < until:
        job = api.get(f"/v1/jobs/{accepted.id}", params={"wait": 20}).json()
    seen = f"{accepted.id} ({accepted.question.spec['kind']}): {job.get('status')} {job.get('error') or ''}"
    if job.get("id") != accepted.id:
        found.lost.append(seen)
    elif job["status"] not in FINAL:
        found.stuck.append(seen)
    elif job["status"] == "succeeded":
        _look_at_result(api, accepted, job, found)
    elif (_given_up(job) and deaths >= MAX_RUNS) or excuse(job):
        found.given_up += 1
    else:
        found.failed.append(f"{seen} after {deaths} kills")


def _given_up(job):
    return job["attempts"] == MAX_RUNS and job["error"]["type"].endswith(":job-lost")


def _look_at_result(api, accepted, job, found):
    result = api.get(f"/v1/jobs/{accepted.id}/result").raise_for_status().json()
    if not accepted.question.right(job, result):
        found.wrong.append(f"{accepted.id}: {str(result)[:200]}")
    if accepted.result not in (None, fingerprint(job, result)):
        found.doubled.append(f"{accepted.id}: its result has changed")
    ends = [event for event in _events(api, accepted.id) if event in FINAL]
    if ends != ["succeeded"]:
        found.doubled.append(f"{accepted.id}: its events end with {ends}")


def _events(api, job_id):
    """The statuses of a job's events, those behind its first end too."""
    statuses, last = [], None
    while True:
        reader = EventReader(job_id, last)
        lines = api.request(**reader.request()).text.splitlines()
        events = [event for line in lines for event in reader.feed(line)]
        if not events:
            return statuses
        statuses += [event.data["status"] for event in events if event.kind == "status"]
        last = events[-1].id


def _look_for_repetitions(api, load, found):
    """A submission that was sent again must not have made a second job."""
    made, after = {}, None
    while True:
        parameters = {"limit": 1000} | ({"after": after} if after else {})
        page = api.get("/v1/jobs", params=parameters).raise_for_status().json()
        for job in page["data"]:
            if name := job["labels"].get("submission"):
                made.setdefault(name, []).append(job["id"])
        if not page["has_more"]:
            break
        after = page["data"][-1]["id"]
    found.doubled += [f"submission {name} made {ids}" for name, ids in made.items() if len(ids) > 1]
