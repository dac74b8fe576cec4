"""What must hold before the service starts on a machine; each failure is one line and an exit code of its own."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from service.settings import Settings

NEEDED_BYTES = 256 << 20
PORT_WAIT_S = 8.0


class StartError(Exception):
    """The service cannot start; the message is one line for the operator.

    Attributes:
        code: the exit code.
    """

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


INSECURE, PORT_TAKEN, HOME_UNUSABLE, ALREADY_RUNNING, CHILD_FAILED = 3, 4, 5, 6, 7


def check_keys(settings: Settings) -> None:
    """Other machines may reach the gateway only when a key exists.

    Raises:
        StartError: the host is not loopback and there is no key, or the store that may hold one does not answer.
    """
    if settings.loopback or settings.api_keys.strip(" ,"):
        return
    from models.core.store import BlobStore, StoreUnavailableError
    from service.keys import KeyStore

    try:
        keys = KeyStore(BlobStore(settings.store)).list()
    except StoreUnavailableError as error:
        raise StartError(str(error), CHILD_FAILED) from error
    if not keys:
        raise StartError(
            f"DEEPNIGHT_HOST={settings.host} can be reached from other machines, and there is no API key: "
            "make one (deepnight keys create --name NAME --scopes infer,data,jobs) or set DEEPNIGHT_API_KEYS",
            INSECURE,
        )


def make_home(home: Path) -> None:
    """Make the state folder and see that it can be written.

    Raises:
        StartError: it cannot.
    """
    probe = home / f".probe-{os.getpid()}"
    try:
        home.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"1")
        probe.unlink()
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StartError(f"the disk of DEEPNIGHT_HOME={home} is full", HOME_UNUSABLE) from error
        reason = error.strerror or str(error)
        raise StartError(
            f"DEEPNIGHT_HOME={home} cannot be written ({reason}): choose another folder", HOME_UNUSABLE
        ) from error


def check_space(home: Path, needed: int = NEEDED_BYTES) -> None:
    """Some space must be free for the queue's log, data sets and results.

    Raises:
        StartError: less than ``needed`` bytes are free.
    """
    free = shutil.disk_usage(home).free
    if free < needed:
        raise StartError(
            f"the disk of DEEPNIGHT_HOME={home} has {free >> 20} MiB free, {needed >> 20} MiB are needed: "
            "make room or choose another folder",
            HOME_UNUSABLE,
        )


@contextmanager
def home_lock(home: Path) -> Iterator[bool]:
    """Hold the lock of ``home`` for the block; gives whether the last holder left without releasing it.

    The kernel releases the lock when its holder ends, however it ends. Two Valkey servers on one append-only file
    would both start and corrupt it; hence this lock.

    Raises:
        StartError: a live instance holds it; names its process.
    """
    path = home / "lock"
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise StartError(
                f"Deepnight already runs on DEEPNIGHT_HOME={home} (process {file.read().strip() or 'unknown'}): "
                "stop it, or set another DEEPNIGHT_HOME and DEEPNIGHT_PORT",
                ALREADY_RUNNING,
            ) from None
        file.seek(0)
        left_behind = bool(file.read().strip())
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield left_behind
        file.truncate(0)


def check_port(host: str, port: int, *, wait_s: float = 0.0) -> None:
    """The gateway's address must be free.

    Args:
        wait_s: how long to wait for the gateway of an instance that was killed a moment ago.

    Raises:
        StartError: it is taken, or the host is no address of this machine.
    """
    until = time.monotonic() + wait_s
    while True:
        problem = _bind_error(host, port)
        if problem is None:
            return
        if problem.errno != errno.EADDRINUSE or time.monotonic() >= until:
            break
        time.sleep(0.2)
    if problem.errno == errno.EADDRINUSE:
        raise StartError(f"port {port} on {host} is taken: set DEEPNIGHT_PORT to a free one", PORT_TAKEN)
    reason = problem.strerror or str(problem)
    raise StartError(f"cannot listen on {host}:{port} ({reason}): check DEEPNIGHT_HOST and DEEPNIGHT_PORT", PORT_TAKEN)


def _bind_error(host: str, port: int) -> OSError | None:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
    except OSError as error:
        return error
    return None
