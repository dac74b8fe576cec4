"""The processes of an instance by what they do."""

import os
import signal
import time
from dataclasses import dataclass

import psutil

MARKS = {
    "job process": ("-m", "workers.horse"),
    "worker": ("-m", "workers"),
    "replica": ("ServeReplica:models:pool",),
    "controller": ("ServeController",),
    "gateway": ("-m", "service"),
}
GONE_S = 10


@dataclass(frozen=True)
class Victim:
    """A process that was killed; times by ``time.monotonic``.

    Attributes:
        job: the job that it ran, itself or by its child.
    """

    role: str
    pid: int
    at: float
    gone_at: float
    job: str | None


def processes(stack, role):
    """The processes of ``role``, by a word of the command line or ``-m`` and the module behind it."""
    if role == "Redis":  # it overwrites its environment, by which the others are found
        return [child for child in psutil.Process(stack.process.pid).children() if "valkey" in child.name()]
    words = MARKS[role]
    found = []
    for process in stack.processes():
        try:
            line = process.cmdline()
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
        if words[0] == "-m":
            if list(words) in (line[i : i + 2] for i in range(len(line))):
                found.append(process)
        elif any(words[0] in word for word in line):
            found.append(process)
    return found


def kill(stack, role):
    """kill -9 one process of ``role`` and wait until it is gone; None where there is none."""
    for process in processes(stack, role):
        job = _job(process, role)
        at = time.monotonic()
        try:
            os.kill(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
        while running(process) and time.monotonic() < at + GONE_S:
            time.sleep(0.005)
        return Victim(role, process.pid, at, time.monotonic(), job)
    return None


def runs(stack, job_id):
    """Whether the job has a process."""
    return any(_job(process, "job process") == job_id for process in processes(stack, "job process"))


def running(process):
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _job(process, role):
    try:
        if role == "job process":
            return process.environ().get("RQ_JOB_ID")
        if role == "worker":
            return next((child.environ().get("RQ_JOB_ID") for child in process.children()), None)
    except psutil.NoSuchProcess:
        return None
    return None
