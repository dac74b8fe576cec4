"""A real instance of the service for tests: ``deepnight serve`` as a process, with a port and a folder of its own."""

import os
import queue
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import psutil

ROOT = Path(__file__).parents[2]
DEEPNIGHT = Path(sys.executable).with_name("deepnight")
READY_S = 120


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def environment(home, port, **settings):
    """The environment of an instance: this one's without its settings (and those of the ``make`` that runs the tests),
    then ``settings`` as ``DEEPNIGHT_*``.
    """
    not_ours = ("DEEPNIGHT_", "MAKE", "MFLAGS", "ARGS")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(not_ours)}
    own = {f"DEEPNIGHT_{name.upper()}": str(value) for name, value in settings.items()}
    return {**kept, "DEEPNIGHT_HOME": str(home), "DEEPNIGHT_PORT": str(port), **own}


class Stack:
    """One instance.

    Attributes:
        base_url: of its gateway.
        home: its state folder.
        process: the command that was started.
        lines: what it has printed so far.
    """

    def __init__(self, home, command=(str(DEEPNIGHT), "serve"), variables=None, **settings):
        self.home = Path(home).resolve()
        self.port = free_port()
        self.base_url = f"http://127.0.0.1:{self.port}"
        self.command = list(command)
        self.variables = variables or {}
        self.settings = settings
        self.lines = []
        self.process = None
        self._printed = queue.Queue()

    def start(self):
        self.process = subprocess.Popen(
            self.command,
            cwd=ROOT,
            env=environment(self.home, self.port, **self.settings) | self.variables,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        threading.Thread(target=self._read, daemon=True).start()
        return self

    def _read(self):
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))
            self._printed.put(line)

    def wait_ready(self, seconds=READY_S):
        """Wait until it has said that it is ready."""
        until = time.monotonic() + seconds
        while not any(line.startswith("Ready after") for line in self.lines):
            assert self.process.poll() is None, self.story()
            assert time.monotonic() < until, f"not ready after {seconds} s\n{self.story()}"
            time.sleep(0.1)
        return self

    def story(self):
        """What it printed and the ends of its logs, for a failed test."""
        logs = [f"--- {path}\n{path.read_text(errors='replace')[-3000:]}" for path in self.home.glob("logs/*.log")]
        return "\n".join([*self.lines, *logs])

    def processes(self):
        """Every process of this instance, by the state folder in its environment."""
        found = []
        for process in psutil.process_iter():
            try:
                if (
                    process.status() != psutil.STATUS_ZOMBIE
                    and process.environ().get("DEEPNIGHT_HOME") == str(self.home)
                    and process.pid != os.getpid()
                ):
                    found.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        return found

    def pids(self, *words):
        """Process ids whose command line contains all ``words``, e.g. ``-m workers``."""
        found = []
        for process in self.processes():
            try:
                if all(word in process.cmdline() for word in words):
                    found.append(process.pid)
            except psutil.NoSuchProcess:
                continue
        return found

    def sockets(self):
        """Socket files in its folder."""
        return [path for path in self.home.rglob("*") if stat.S_ISSOCK(path.lstat().st_mode)]

    def gone(self, seconds):
        """Wait until no process of it is left; those that are."""
        until = time.monotonic() + seconds
        while (left := self.processes()) and time.monotonic() < until:
            time.sleep(0.1)
        return left

    def stop(self, number=signal.SIGTERM, seconds=20):
        """Send a signal to the command and wait for its end; its exit status and how long it took."""
        started = time.monotonic()
        self.process.send_signal(number)
        status = self.process.wait(seconds)
        return status, time.monotonic() - started

    def client(self, **options):
        return httpx.Client(base_url=self.base_url, timeout=60, **options)
