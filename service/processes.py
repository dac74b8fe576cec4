"""Child processes of the supervisor: they end when it ends, and come back when they fail."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36
LOG_BYTES = 16 << 20
BACKOFF_S = (1.0, 2.0, 4.0, 8.0, 15.0)
STEADY_S = 60.0


class Child:
    """One supervised program in a session of its own, so that a terminal's Ctrl-C reaches only the supervisor.

    Args:
        name: for messages and the log file.
        module: the Python module to run.
        environment: its whole environment.
        logs: folder of ``NAME.log``, which gets its output.
    """

    def __init__(self, name: str, module: str, environment: Mapping[str, str], logs: Path) -> None:
        self.name = name
        self.module = module
        self.environment = dict(environment)
        self.log = logs / f"{name}.log"
        self.failures = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._again_at: float | None = None

    @property
    def pid(self) -> int | None:
        """Its process, while it runs."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def start(self) -> None:
        """Start it; the kernel sends it SIGTERM when the supervisor dies."""
        if self.log.exists() and self.log.stat().st_size > LOG_BYTES:
            self.log.replace(self.log.with_suffix(".log.1"))
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "workers.leash", str(os.getpid()), sys.executable, "-m", self.module],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._started = time.monotonic()
        self._again_at = None

    def look(self) -> int | None:
        """The exit status when it has just ended (it is then started again after a pause), else None."""
        if self._again_at is not None:
            if time.monotonic() >= self._again_at:
                self.start()
            return None
        status = self._process.poll() if self._process is not None else None
        if status is None:
            return None
        if time.monotonic() - self._started > STEADY_S:
            self.failures = 0
        self._again_at = time.monotonic() + self.pause
        self.failures += 1
        return status

    @property
    def pause(self) -> float:
        """Seconds until it is started again: longer with each failure in a row."""
        return BACKOFF_S[min(self.failures, len(BACKOFF_S) - 1)]

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the program, if it runs."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    def wait(self, seconds: float) -> bool:
        """Wait for its end; whether it has ended."""
        if self._process is None:
            return True
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(max(seconds, 0.0))
        return self._process.poll() is not None

    def kill(self) -> None:
        """Kill the program and what it left in its process group."""
        if self._process is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def last_line(self) -> str:
        """The last line of its log that is not empty."""
        if not self.log.exists():
            return ""
        with self.log.open("rb") as file:
            file.seek(max(0, self.log.stat().st_size - 8192))
            lines = file.read().decode("utf-8", "replace").splitlines()
        return next((line.strip() for line in reversed(lines) if line.strip()), "")


def adopt_orphans() -> None:
    """Become the parent of descendants whose own parent died, so that :func:`end_orphans` finds them (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_orphans(seconds: float) -> int:
    """Wait for adopted processes, kill those left after ``seconds``; the number killed (Linux)."""
    until, killed = time.monotonic() + seconds, 0
    while children := _children():
        if late := time.monotonic() >= until:
            killed += len(children)
        for pid in children:
            with suppress(ProcessLookupError, ChildProcessError):
                if late:
                    os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0 if late else os.WNOHANG)
        time.sleep(0.05)
    return killed


def _children() -> Sequence[int]:
    path = Path(f"/proc/self/task/{os.getpid()}/children")
    return [int(pid) for pid in path.read_text().split()] if path.exists() else []


def reap_orphans(known: Collection[int | None]) -> None:
    """Collect the status of adopted processes that have ended, leaving the ``known`` ones to their owners."""
    for pid in _children():
        if pid not in known:
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
