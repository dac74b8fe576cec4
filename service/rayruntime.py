"""Ray itself: started on this machine, or joined where a cluster is named; stopped without a trace."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from service import deployments
from service.settings import Settings

OBJECT_STORE_BYTES = 200 << 20
CONNECT_S = 10.0
NOTE = "ray-folder"
PREFIX = "dnray-"


T = TypeVar("T")


class RayEndedError(RuntimeError):
    """Ray was stopped while something was still to be started on it."""


class RayRuntime:
    """This process's connection to Ray. Inside a replica, where Ray is there already, it does nothing."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._folder: Path | None = None
        self._busy = threading.Lock()
        self._ended = False
        self.owned = False

    def start(self) -> None:
        """Start a local Ray or join the cluster of ``settings.ray_address``; takes some ten seconds."""
        self.perform(self._start)

    def perform(self, step: Callable[[], T]) -> T:
        """Do something with Ray that :meth:`stop` must wait for.

        Raises:
            RayEndedError: it was stopped; Ray's functions would start another one.
        """
        with self._busy:
            if self._ended:
                raise RayEndedError
            return step()

    def _start(self) -> None:
        deployments.prepare_environment()
        import ray

        if ray.is_initialized():
            return
        self.owned = True
        if self._settings.ray_address != "local":
            os.environ.setdefault("RAY_AUTH_MODE", "token")
            _check_reachable(self._settings.ray_address)
            # The cluster's own environment was fixed when it was started.
            flags = {name: os.environ[name] for name in deployments.FLAGS}
            ray.init(
                address=self._settings.ray_address,
                runtime_env={"env_vars": flags},
                log_to_driver=False,
                configure_logging=False,
            )
            return
        self._folder = self._make_folder()
        ray.init(
            address="local",
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES,
            num_cpus=os.cpu_count(),
            log_to_driver=False,
            configure_logging=False,
            _temp_dir=str(self._folder),
            _metrics_export_port=self._settings.ray_metrics_port or None,
        )

    def stop(self, *, proxied: bool = False) -> None:
        """End the local Ray, or leave the cluster as it is; the step that is being done is waited for.

        Args:
            proxied: Serve runs a proxy, whose processes only Serve itself ends; without one, Ray ends everything in
                half the time.
        """
        self._ended = True
        with self._busy:
            self._stop(proxied)

    def _stop(self, proxied: bool) -> None:
        import ray
        from ray import serve

        if not self.owned or not ray.is_initialized():
            return
        if proxied and self._folder is not None:
            serve.shutdown()  # type: ignore[no-untyped-call]
        ray.shutdown()
        if self._folder is not None:
            remove_own(self._settings.home, self._folder)

    def _make_folder(self) -> Path:
        """A short folder for Ray, whose sockets below it must stay under 108 bytes; a killed instance's is removed."""
        self._settings.home.mkdir(parents=True, exist_ok=True)
        remove_left_behind(self._settings.home)
        note = self._settings.home / NOTE
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        note.write_text(str(folder), encoding="utf-8")
        return folder


def _check_reachable(address: str) -> None:
    """Connect to the cluster once; Ray itself tries for minutes where nobody listens.

    Raises:
        ConnectionError: nobody listens at ``HOST:PORT``.
    """
    host, colon, port = address.rpartition(":")
    if "/" in address or not colon or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S).close()
    except OSError as error:
        raise ConnectionError(f"no Ray cluster answers at {address}: {error}") from error


def remove_left_behind(home: Path) -> None:
    """Remove the Ray folder of a gateway of ``home`` that was killed; its processes must be gone."""
    note = home / NOTE
    if note.exists():
        folder = Path(note.read_text(encoding="utf-8"))
        if folder.name.startswith(PREFIX):
            _remove(folder)
        note.unlink(missing_ok=True)


def remove_own(home: Path, folder: Path) -> None:
    """Remove the Ray folder ``folder``; the note in ``home`` may be a successor's already, and stays then."""
    _remove(folder)
    note = home / NOTE
    if note.exists() and note.read_text(encoding="utf-8") == str(folder):
        note.unlink(missing_ok=True)


def _remove(folder: Path) -> None:
    """Remove Ray's folder, in which its last processes may still write for a moment."""
    for _ in range(20):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.1)
