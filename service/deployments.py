"""Ray Serve deployments made from the registry: one shared pool, and one for each dedicated method.

The environment that :func:`prepare_environment` sets must be there before Ray is imported, here and in replicas.
"""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from models.core.registry import MethodEntry, Registry
from service.settings import Settings

POOL = "pool"
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
    "OMP_NUM_THREADS": "1",
}
CALLS_PER_REPLICA = 16


def prepare_environment() -> None:
    """Set Ray's flags where the operator has not set them."""
    for name, value in FLAGS.items():
        os.environ.setdefault(name, value)


def deployment_of(entry: MethodEntry, settings: Settings) -> str:
    """Name of the deployment that serves a method: its own slug, or the pool."""
    placement = settings.placement.get(entry.slug, entry.card.placement)
    return entry.slug if placement == "dedicated" else POOL


def applications(registry: Registry, settings: Settings) -> dict[str, Any]:
    """The Serve applications by name: the pool, and each dedicated method's own."""
    from ray import serve

    class Replica:
        """Hosts versions; all of the work is :class:`service.host.ModelHost`'s."""

        def __init__(self, settings_json: str, threads: int) -> None:
            from service.host import ModelHost

            self._host = ModelHost(Settings.model_validate_json(settings_json))
            self._threads = ThreadPoolExecutor(threads, thread_name_prefix="predict")

        @serve.multiplexed(max_num_models_per_replica=settings.models_per_replica)  # type: ignore[untyped-decorator]
        async def load(self, model: str) -> str:
            """Note that ``model`` lives here, so that Serve prefers this replica for its calls."""
            return model

        async def predict(self, model: str, params: bytes, inputs: Any) -> Any:
            """Perform one call in a thread, so that Serve's loop answers health checks meanwhile."""
            await self.load(model)
            return await asyncio.get_running_loop().run_in_executor(
                self._threads, self._host.call, model, params, inputs
            )

    def application(name: str, **options: Any) -> Any:
        deployment: Any = serve.deployment(
            Replica,
            name=name,
            max_ongoing_requests=CALLS_PER_REPLICA,
            health_check_period_s=5,
            health_check_timeout_s=30,
            graceful_shutdown_timeout_s=5,
            ray_actor_options={"num_cpus": 0, "num_gpus": settings.num_gpus},
            **options,
        )
        return deployment.bind(settings.model_dump_json(), settings.calls_in_flight + 2)

    own = {name for entry in registry.values() if (name := deployment_of(entry, settings)) != POOL}
    scaling = {
        "min_replicas": 0,
        "initial_replicas": 0,
        "max_replicas": settings.max_replicas,
        "upscale_delay_s": 0,
        "downscale_to_zero_delay_s": 600,
    }
    return {
        POOL: application(POOL, num_replicas=settings.replicas),
        **{name: application(name, autoscaling_config=scaling) for name in sorted(own)},
    }
