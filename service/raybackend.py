"""The backend on Ray Serve: calls go to replicas through deployment handles, without a proxy."""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any

import structlog

from models.core.registry import Registry
from models.core.versions import Version
from service import deployments
from service.calls import Call, CallFailedError, Reply, payload_bytes
from service.rayruntime import RayRuntime
from service.settings import Settings

log = structlog.get_logger("deepnight.ray")

RETRIES = 2
BY_REFERENCE_BYTES = 3 << 20


class RayBackend:
    """Starts Ray (or joins a cluster), deploys the replicas and calls them.

    Args:
        died: told when a replica died under a call.
    """

    def __init__(self, settings: Settings, registry: Registry, died: Callable[[], None]) -> None:
        self._settings = settings
        self._registry = registry
        self._died = died
        self._handles: dict[str, Any] = {}
        self._models: dict[tuple[str, str], Any] = {}
        self._runtime = RayRuntime(settings)

    async def start(self) -> None:
        """Start Ray and Serve in a thread; the handles belong to the running loop."""
        deploying = asyncio.ensure_future(asyncio.to_thread(self._deploy))
        while not deploying.done():
            await asyncio.wait({deploying}, timeout=0.1)
            _take_back_sigterm()
        deploying.result()
        from ray import serve

        names = {deployments.deployment_of(entry, self._settings) for entry in self._registry.values()}
        for name in names | {deployments.POOL}:
            self._handles[name] = serve.get_deployment_handle(name, app_name=deployments.APPLICATION)
        log.info("inference is ready", deployments=sorted(self._handles))

    async def replicas(self) -> Mapping[str, Mapping[str, int]]:
        """What Serve's controller says."""
        return await asyncio.to_thread(self._runtime.perform, _replicas)

    async def stop(self) -> None:
        """Shut down Serve and Ray where they are this process's own."""
        await asyncio.to_thread(self._runtime.stop)

    async def call(self, version: Version, call: Call) -> Reply:
        """Call a replica; a call whose replica died is made again, as predicting has no side effects.

        Raises:
            CallFailedError: the replica died three times, or the call itself failed.
        """
        from ray.exceptions import RayError
        from ray.serve.exceptions import RayServeException

        handle = self._models.get((version.id, "predict")) or self._handle(version, "predict")
        if payload_bytes(call.inputs) > BY_REFERENCE_BYTES:
            handle = handle.options(_by_reference=True)
        for attempt in range(RETRIES + 1):
            response = handle.remote(call)
            try:
                reply: Reply = await response
            except asyncio.CancelledError:
                response.cancel()
                raise
            except (RayError, RayServeException) as error:
                self._give_up_or_retry(error, "call", version, attempt)
            else:
                return reply
        raise AssertionError("unreachable")

    async def stream(self, version: Version, call: Call, previews: int) -> AsyncGenerator[Reply]:
        """Call a replica that sends previews; one that dies is replaced, and its previews come again.

        Raises:
            CallFailedError: the replica died three times, or the call itself failed.
        """
        from ray.exceptions import RayError
        from ray.serve.exceptions import RayServeException

        handle = self._models.get((version.id, "stream")) or self._handle(version, "stream", stream=True)
        for attempt in range(RETRIES + 1):
            replies = handle.remote(call, previews)
            try:
                async for reply in replies:
                    yield reply
            except (RayError, RayServeException) as error:
                self._give_up_or_retry(error, "stream", version, attempt)
            else:
                return
            finally:
                replies.cancel()

    def _give_up_or_retry(self, error: Exception, what: str, version: Version, attempt: int) -> None:
        """Return where a call is worth making again: its replica died, and not for the third time.

        Raises:
            CallFailedError: it is not.
        """
        from ray.exceptions import RayActorError

        if not isinstance(error, RayActorError):
            log.error(f"a {what} failed", model=version.id, exc_info=error)
            raise CallFailedError("the call to its replica failed") from error
        self._died()
        log.warning(f"a replica died under a {what}", model=version.id, attempt=attempt, error=type(error).__name__)
        if attempt == RETRIES:
            raise CallFailedError("its replica died repeatedly") from error

    def _handle(self, version: Version, method: str, **options: Any) -> Any:
        handle = getattr(self._handles[deployments.deployment_of(version.entry, self._settings)], method)
        # What crosses is of importable classes; cloudpickle takes twice as long.
        options |= {"request_serialization": "pickle", "response_serialization": "pickle"}
        if deployments.replicas_of(version.entry, self._settings) > 1:
            options["multiplexed_model_id"] = version.id
        self._models[version.id, method] = handle.options(**options)
        return self._models[version.id, method]

    def _deploy(self) -> None:
        """Start Ray and deploy the replicas; an ingress replica finds both there."""
        self._runtime.start()
        if not self._runtime.owned:
            return
        self._runtime.perform(self._run_application)
        while not self._runtime.perform(_running):
            time.sleep(0.05)

    def _run_application(self) -> None:
        from ray import serve
        from ray.serve.api import RunTarget

        serve.start(proxy_location="Disabled")
        target = deployments.application(self._registry, self._settings)
        served = RunTarget(target=target, name=deployments.APPLICATION, route_prefix=None)
        serve.run_many([served], wait_for_applications_running=False)


def _replicas() -> Mapping[str, Mapping[str, int]]:
    from ray import serve

    return {
        deployment: {str(state): count for state, count in found.replica_states.items()}
        for application in serve.status().applications.values()
        for deployment, found in application.deployments.items()
    }


def _running() -> bool:
    """Whether every application runs.

    Raises:
        RuntimeError: one cannot be deployed; says why.
    """
    from ray import serve

    states = serve.status().applications
    for name, state in states.items():
        if state.status == "DEPLOY_FAILED":
            raise RuntimeError(f"{name} cannot be deployed: {state.message}")
    return all(state.status == "RUNNING" for state in states.values())


def _take_back_sigterm() -> None:
    """Install this process's own handler again: Ray's prints a stack and aborts the process three seconds later,
    in the middle of an orderly end. It is set somewhere within `ray.init`.
    """
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))
