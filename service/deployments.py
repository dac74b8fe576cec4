"""Ray Serve deployments made from the registry: one shared pool, and one for each dedicated method.

The environment that :func:`prepare_environment` sets must be there before Ray is imported, here and in replicas.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from models.core.registry import MethodEntry, Registry
from service import logs
from service.calls import CALLS_PER_REPLICA, Call, Reply
from service.pumping import pump
from service.settings import Settings

APPLICATION = "models"
POOL = "pool"
EVERY_METHOD = "*"
ROOT = Path(__file__).resolve().parents[1]
OF_A_GATEWAY = ("home", "host", "port", "redis_url", "api_keys", "ray_address", "ray_metrics_port")
GRPC_MESSAGE_BYTES = 64 << 20
FLAGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # One loop for router and gateway, one for Serve and user code: each saved hop is half a millisecond.
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    "RAY_SERVE_USE_GRPC_BY_DEFAULT": "1",
    "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH": str(GRPC_MESSAGE_BYTES),
    "RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE": "1000",
    "RAY_SERVE_LOG_TO_STDERR": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # Ray's workers give way to every other process by default; a replica has requests waiting for it.
    "RAY_worker_niceness": "0",
    "OMP_NUM_THREADS": "1",
}


def prepare_environment() -> None:
    """Set Ray's flags where the operator has not set them."""
    for name, value in FLAGS.items():
        os.environ.setdefault(name, value)


def deployment_of(entry: MethodEntry, settings: Settings) -> str:
    """Name of the deployment that serves a method: its own slug, or the pool."""
    placement = settings.placement.get(entry.slug) or settings.placement.get(EVERY_METHOD) or entry.card.placement
    return entry.slug if placement == "dedicated" else POOL


def replicas_of(entry: MethodEntry, settings: Settings) -> int:
    """How many replicas a method can have at most."""
    return settings.replicas if deployment_of(entry, settings) == POOL else settings.max_replicas


def calls_in_flight_of(entry: MethodEntry, settings: Settings) -> int:
    """How many calls of a version a replica gets at once."""
    return min(settings.calls_in_flight, entry.card.calls_in_flight or settings.calls_in_flight)


def _for_replicas(settings: Settings) -> str:
    """Settings as JSON for processes with another working directory, without what is not theirs to know."""
    roots = os.pathsep.join(str(root.resolve()) for root in settings.method_roots)
    update = {"home": settings.home.resolve(), "methods_path": roots, "api_keys": "", "redis_url": None}
    return settings.model_copy(update=update).model_dump_json()


def revision(settings: Settings) -> str:
    """Code and settings of replicas as a name: a gateway that joins a cluster where they run changes nothing there."""
    digest = hashlib.sha256(settings.model_dump_json(exclude=set(OF_A_GATEWAY)).encode())
    for root in (ROOT / "models", ROOT / "service", *settings.method_roots):
        for path in sorted(path for kind in ("*.py", "*.toml") for path in root.rglob(kind)):
            digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _log_stream(settings: Settings) -> TextIO:
    """Where replicas log: beside the gateway's log on one machine, as Ray's own folder goes with Ray."""
    if settings.ray_address != "local":
        return logs.own_stderr()
    path = settings.home / "logs" / "replicas.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("a", buffering=1, encoding="utf-8")


def application(registry: Registry, settings: Settings) -> Any:
    """The Serve application of all models: the pool, and with it each dedicated method's own deployment."""
    from ray import serve

    class Replica:
        """Hosts versions; all of the work is :class:`service.host.ModelHost`'s."""

        def __init__(self, settings_json: str, alone: bool, *_deployed_with_it: Any) -> None:
            from service.host import ModelHost

            self._alone = alone
            own = Settings.model_validate_json(settings_json)
            logs.configure(own, _log_stream(own))
            self._host = ModelHost(own)
            # As many threads as calls: a slow method or a version that loads must not hold up the others.
            self._threads = ThreadPoolExecutor(CALLS_PER_REPLICA, thread_name_prefix="predict")
            self._cpu_seconds: float | None = None

        @serve.multiplexed(max_num_models_per_replica=settings.models_per_replica)  # type: ignore[untyped-decorator]
        async def load(self, model: str) -> str:
            """Note that ``model`` lives here, so that Serve prefers this replica of several for its calls."""
            return model

        async def predict(self, call: Call) -> Any:
            """Perform one call: in a thread, as Serve's loop answers health checks meanwhile; at once if brief."""
            if not self._alone:
                await self.load(call.model)
            if self._host.brief(call):
                return self._signed(self._host.call(call))
            reply = await asyncio.get_running_loop().run_in_executor(self._threads, self._host.call, call)
            return self._signed(reply)

        async def stream(self, call: Call, previews: int) -> AsyncIterator[Any]:
            """Perform one call in a thread and yield its previews before its reply."""
            if not self._alone:
                await self.load(call.model)
            async with aclosing(pump(self._threads, partial(self._host.stream, call, previews))) as replies:
                async for reply in replies:
                    yield reply if reply.preview else self._signed(reply)

        def _signed(self, reply: Reply) -> Reply:
            """The reply with what the gateway counts of this process."""
            now, before = time.process_time(), self._cpu_seconds
            self._cpu_seconds = now
            return replace(reply, first=before is None, cpu_seconds=now - (before or 0.0))

    version = revision(settings)

    def bound(name: str, replicas: int, *others: Any, **options: Any) -> Any:
        deployment: Any = serve.deployment(
            Replica,
            name=name,
            max_ongoing_requests=CALLS_PER_REPLICA,
            health_check_period_s=5,
            health_check_timeout_s=30,
            graceful_shutdown_timeout_s=5,
            max_surge_percent=100,  # new replicas are there before old ones go
            logging_config={"enable_access_log": False},  # the gateway's lines say more, and Ray's go with its folder
            ray_actor_options={"num_cpus": settings.num_cpus, "num_gpus": settings.num_gpus},
            **options,
        )
        named = deployment.options(
            version=version, _internal=True
        )  # Serve's own names are random: each start an update
        return named.bind(_for_replicas(settings), replicas == 1, *others)

    own = {name: entry for entry in registry.values() if (name := deployment_of(entry, settings)) != POOL}
    scaling = {
        "min_replicas": 0,
        "initial_replicas": 0,
        "max_replicas": settings.max_replicas,
        "upscale_delay_s": 0,
        "downscale_to_zero_delay_s": 600,
    }
    dedicated = [
        bound(
            name,
            settings.max_replicas,
            autoscaling_config=scaling | {"target_ongoing_requests": calls_in_flight_of(entry, settings)},
        )
        for name, entry in sorted(own.items())
    ]
    return bound(POOL, settings.replicas, *dedicated, num_replicas=settings.replicas)
