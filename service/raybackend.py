"""The backend on Ray Serve: calls go to replicas through deployment handles, without a proxy."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import structlog

from models.core.registry import Registry
from models.core.versions import Version
from service import deployments
from service.calls import CallFailedError, Reply, payload_bytes
from service.settings import Settings

log = structlog.get_logger("deepnight.ray")

RETRIES = 2
BY_REFERENCE_BYTES = 3 << 20
OBJECT_STORE_BYTES = 200 << 20
TEMP_NOTE = "ray-folder"
PREFIX = "dnray-"


class RayBackend:
    """Starts Ray (or joins a cluster), deploys the replicas and calls them."""

    def __init__(self, settings: Settings, registry: Registry) -> None:
        self._settings = settings
        self._registry = registry
        self._handles: dict[str, Any] = {}
        self._folder: Path | None = None

    async def start(self) -> None:
        """Start Ray and Serve in a thread; the handles belong to the running loop."""
        deployments.prepare_environment()
        await asyncio.to_thread(self._start_ray)
        from ray import serve

        names = {deployments.deployment_of(entry, self._settings) for entry in self._registry.values()}
        for name in names | {deployments.POOL}:
            self._handles[name] = serve.get_deployment_handle(name, app_name=name).predict
        log.info("inference is ready", deployments=sorted(self._handles))

    async def stop(self) -> None:
        """Shut down Serve and Ray where they are this process's own."""
        await asyncio.to_thread(self._stop_ray)

    async def call(self, version: Version, params: bytes, inputs: Any) -> Reply:
        """Call a replica; a call whose replica died is made again, as predicting has no side effects.

        Raises:
            CallFailedError: the replica died three times, or the call itself failed.
        """
        from ray.exceptions import RayActorError, RayError
        from ray.serve.exceptions import RayServeException

        handle = self._handles[deployments.deployment_of(version.entry, self._settings)]
        if payload_bytes(inputs) > BY_REFERENCE_BYTES:
            handle = handle.options(_by_reference=True)
        handle = handle.options(multiplexed_model_id=version.id)
        for attempt in range(RETRIES + 1):
            response = handle.remote(version.id, params, inputs)
            try:
                reply: Reply = await response
            except asyncio.CancelledError:
                response.cancel()
                raise
            except RayActorError as error:
                log.warning(
                    "a replica died under a call", model=version.id, attempt=attempt, error=type(error).__name__
                )
                if attempt == RETRIES:
                    raise CallFailedError("its replica died repeatedly") from error
            except (RayError, RayServeException) as error:
                log.exception("a call failed", model=version.id)
                raise CallFailedError("the call to its replica failed") from error
            else:
                return reply
        raise AssertionError("unreachable")

    def _start_ray(self) -> None:
        import ray
        from ray import serve
        from ray.serve.api import RunTarget

        if self._settings.ray_address == "local":
            self._folder = self._make_folder()
            ray.init(
                address="local",
                include_dashboard=False,
                object_store_memory=OBJECT_STORE_BYTES,
                num_cpus=os.cpu_count(),
                log_to_driver=False,
                configure_logging=False,
                _temp_dir=str(self._folder),
            )
        else:
            os.environ.setdefault("RAY_AUTH_MODE", "token")
            ray.init(address=self._settings.ray_address, log_to_driver=False, configure_logging=False)
        serve.start(proxy_location="Disabled")
        targets = [
            RunTarget(target=application, name=name, route_prefix=None)
            for name, application in deployments.applications(self._registry, self._settings).items()
        ]
        serve.run_many(targets)

    def _stop_ray(self) -> None:
        import ray
        from ray import serve

        if self._folder is not None:
            serve.shutdown()  # type: ignore[no-untyped-call]
        ray.shutdown()
        if self._folder is not None:
            _remove(self._folder)
            (self._settings.home / TEMP_NOTE).unlink(missing_ok=True)

    def _make_folder(self) -> Path:
        """A short folder for Ray, whose sockets below it must stay under 108 bytes; a killed instance's is removed."""
        note = self._settings.home / TEMP_NOTE
        note.parent.mkdir(parents=True, exist_ok=True)
        if note.exists():
            left_behind = Path(note.read_text(encoding="utf-8"))
            if left_behind.name.startswith(PREFIX):
                _remove(left_behind)
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        note.write_text(str(folder), encoding="utf-8")
        return folder


def _remove(folder: Path) -> None:
    """Remove Ray's folder, in which its last processes may still write for a moment."""
    for _ in range(20):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
        time.sleep(0.1)
