"""Waiting for a job of the contract tests."""

import time


def ended(client, job, seconds=120):
    """The job of id ``job`` when it has ended, by long polls."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        answer = client.get(f"/v1/jobs/{job}", params={"wait": 20}).json()
        if answer["status"] not in ("queued", "running"):
            return answer
    raise TimeoutError(job)
