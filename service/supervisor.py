"""``deepnight serve``: Valkey, the gateway and one worker as one program.

Stopping goes gateway, worker, Valkey, so that nothing is accepted that cannot be stored, within 15 seconds. When this
process is killed, the kernel tells the children, and each of them ends what it started.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from types import FrameType
from typing import Any

from service import __version__
from service.preflight import (
    CHILD_FAILED,
    PORT_WAIT_S,
    StartError,
    check_keys,
    check_port,
    check_space,
    home_lock,
    make_home,
)
from service.processes import Child, adopt_orphans, end_orphans, reap_orphans
from service.rayruntime import remove_left_behind
from service.settings import Settings
from workers.valkey import EmbeddedValkey, ValkeyError

LOOK_S = 0.25
VALKEY_PAUSE_S = 5.0
GATEWAY_STOP_S, WORKER_STOP_S, WORKER_DRAIN_S = 8.0, 5.0, 2.5
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def serve(settings: Settings, say: Callable[[str], None]) -> int:
    """Run until a signal stops it; the exit status.

    Args:
        say: shows one line to the operator.

    Raises:
        StartError: something that must hold does not; nothing is left running.
    """
    home = settings.home.resolve()
    make_home(home)
    check_space(home)
    check_keys(settings)
    with home_lock(home) as left_behind:
        check_port(settings.host, settings.port, wait_s=PORT_WAIT_S if left_behind else 0.0)
        return Supervisor(settings, home, say).run()


class Supervisor:
    """The three programs and their life.

    Args:
        home: the state folder, absolute and locked.
    """

    def __init__(self, settings: Settings, home: Path, say: Callable[[str], None]) -> None:
        self.settings = settings
        self.home = home
        self.logs = home / "logs"
        self.logs.mkdir(exist_ok=True)
        self.say = say
        self.started = time.monotonic()
        self.valkey = None if settings.redis_url else EmbeddedValkey(home)
        self.children: list[Child] = []
        self._valkey_again_at = 0.0
        self._stopping = False
        self._checks: dict[str, str] = {}
        self._announced = False

    def run(self) -> int:
        """Start everything, watch it, stop it; the exit status."""
        adopt_orphans()
        previous = {number: signal.signal(number, self._on_signal) for number in STOPPING}
        try:
            self._start()
            while not self._stopping:
                self._look()
                time.sleep(LOOK_S)
        finally:
            self._shut_down()
            for number, handler in previous.items():
                signal.signal(number, handler)
        return 0

    def _start(self) -> None:
        self.say(f"Deepnight {__version__} starts on {self.address}")
        if self.valkey is None:
            url = str(self.settings.redis_url)
        else:
            try:
                url = self.valkey.start()
            except ValkeyError as error:
                raise StartError(str(error), CHILD_FAILED) from error
            self._report("valkey", "ready")
        environment = {
            **os.environ,
            "DEEPNIGHT_HOME": str(self.home),
            "DEEPNIGHT_REDIS_URL": url,
            "DEEPNIGHT_DRAIN_S": str(min(self.settings.drain_s, WORKER_DRAIN_S)),
            "PYTHONUNBUFFERED": "1",
        }
        for name, module in (("gateway", "service"), ("worker", "workers")):
            if not self._stopping:
                self.children.append(Child(name, module, environment, self.logs))
                self.children[-1].start()

    def _look(self) -> None:
        """Notice programs that ended, and what the gateway says about itself."""
        reap_orphans({child.pid for child in self.children} | {self.valkey.pid if self.valkey else None})
        self._keep_valkey()
        for child in self.children:
            pause = child.pause
            status = child.look()
            if status is None:
                continue
            if child.name == "gateway" and not self._checks:
                raise StartError(f"the gateway could not start: {child.last_line()} (log: {child.log})", CHILD_FAILED)
            self.say(
                f"{child.name} left with status {status} ({child.last_line()[:500]}); "
                f"starting it again in {pause:.0f} s (log: {child.log})"
            )
        if not self._announced:
            self._announce(self._readiness())

    def _keep_valkey(self) -> None:
        """Start Valkey again when it has ended, on the same address and data."""
        if self.valkey is None or self.valkey.running() or time.monotonic() < self._valkey_again_at:
            return
        self.say("valkey left; starting it again")
        try:
            self.valkey.start()
        except ValkeyError as error:
            self._valkey_again_at = time.monotonic() + VALKEY_PAUSE_S
            self.say(f"{error}; trying again in {VALKEY_PAUSE_S:.0f} s")

    def _announce(self, checks: dict[str, str]) -> None:
        """Report each dependency once as it comes up, and all addresses when everything is there."""
        if checks and not self._checks:
            self._report("gateway", "listening")
            if checks.get("serve") != "ok" and self.settings.backend == "ray":
                self.say("  inference  loading (Ray takes about ten seconds)")
        for name, label in (("serve", "inference"), ("workers", "worker")):
            if checks.get(name) == "ok" and self._checks.get(name) != "ok":
                self._report(label, "ready")
        self._checks = checks or self._checks
        if all(self._checks.get(name) == "ok" for name in ("serve", "store", "redis", "workers")):
            self._announced = True
            for line in self._welcome():
                self.say(line)

    def _readiness(self) -> dict[str, str]:
        """The ``checks`` of ``/readyz``; empty while nobody answers."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.settings.host, self.settings.host)  # noqa: S104
        connection = HTTPConnection(host, self.settings.port, timeout=5)
        try:
            connection.request("GET", "/readyz")
            answer: dict[str, Any] = json.loads(connection.getresponse().read())
        except (OSError, HTTPException, ValueError):
            return {}
        finally:
            connection.close()
        return dict(answer.get("checks", {}))

    def _report(self, name: str, state: str) -> None:
        self.say(f"  {name:<10} {state} ({time.monotonic() - self.started:.1f} s)")

    @property
    def address(self) -> str:
        """Base URL of the gateway."""
        host = f"[{self.settings.host}]" if ":" in self.settings.host else self.settings.host
        return f"http://{host}:{self.settings.port}"

    def _welcome(self) -> list[str]:
        key = '-H "Authorization: Bearer $DEEPNIGHT_API_KEY" ' if self.settings.api_keys else ""
        body = '{"model":"robust-ot","a":{"points":[[0,0],[1,0]]},"b":{"points":[[0,1],[1,1]]}}'
        return [
            "",
            f"Ready after {time.monotonic() - self.started:.0f} s.",
            f"  API      {self.address}",
            f"  Docs     {self.address}/docs",
            f"  Metrics  {self.address}/metrics",
            f"  State    {self.home}",
            f"  Logs     {self.logs}/gateway.log and worker.log",
            f"  Try      curl {self.address}/v1/distances {key}-H 'Content-Type: application/json' -d '{body}'",
            "Ctrl-C stops it.",
        ]

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._stopping = True

    def _shut_down(self) -> None:
        started = time.monotonic()
        self.say("stopping ...")
        for child, seconds in zip(self.children, (GATEWAY_STOP_S, WORKER_STOP_S), strict=False):
            child.signal(signal.SIGTERM)
            if not child.wait(seconds):
                self.say(f"{child.name} did not stop within {seconds:.0f} s: killed")
            child.kill()
        if self.valkey is not None:
            self.valkey.stop()
        end_orphans(1.0)
        remove_left_behind(self.home)
        self.say(f"stopped after {time.monotonic() - started:.1f} s; state is kept in {self.home}")


def stderr(line: str) -> None:
    """Show one line at once."""
    print(line, file=sys.stderr, flush=True)
