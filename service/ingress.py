"""The gateway inside Ray Serve, for clusters: the same application in ingress replicas behind Serve's HAProxy.

``python -m service.ingress`` deploys it to the cluster that DEEPNIGHT_RAY_ADDRESS names (a local one by default) and
stays until a signal. KubeRay's ``serveConfigV2`` names the builders ``service.ingress:gateway`` and
``service.ingress:models`` instead. HAProxy listens on all interfaces, so this needs API keys.
"""

from __future__ import annotations

import signal
import sys
import threading
from typing import TYPE_CHECKING, Any

from models.core.registry import Registry
from service import deployments
from service.settings import Settings

if TYPE_CHECKING:
    from fastapi import FastAPI

GATEWAY = "gateway"


def build_app() -> FastAPI:
    """The application as each ingress replica makes it."""
    from service import logs
    from service.app import create_app

    settings = Settings()
    logs.configure(settings, logs.own_stderr())
    return create_app(settings)


def gateway(args: dict[str, Any]) -> Any:
    """Serve application of the gateway; ``args`` are options of its deployment, e.g. ``num_replicas``."""
    deployments.prepare_environment()
    from ray import serve

    options: dict[str, Any] = {
        "num_replicas": 1,
        "max_ongoing_requests": 1000,
        "ray_actor_options": {"num_cpus": 0},
        "logging_config": {"enable_access_log": False},  # the application writes a line for each request itself
    } | args
    ingress: Any = serve.deployment(serve.ingress(build_app)(), name=GATEWAY, **options)
    return ingress.bind()


def models(args: dict[str, Any]) -> Any:
    """Serve application of all models; their placement, replicas and share of a GPU are settings."""
    deployments.prepare_environment()
    settings = Settings()
    return deployments.application(Registry(*settings.method_roots), settings)


def deploy(settings: Settings) -> None:
    """Deploy models and gateway to the Ray that this process is connected to."""
    from ray import serve
    from ray.serve.api import RunTarget

    serve.start(proxy_location="EveryNode", http_options={"host": settings.host, "port": settings.port})
    served = RunTarget(target=models({}), name=deployments.APPLICATION, route_prefix=None)
    serve.run_many([served, RunTarget(target=gateway({}), name=GATEWAY, route_prefix="/")])


def main() -> int:
    """Deploy and stay until SIGINT or SIGTERM."""
    deployments.prepare_environment()
    from service.rayruntime import RayRuntime

    settings = Settings()
    runtime = RayRuntime(settings)
    stopped = threading.Event()
    runtime.start()
    for number in (signal.SIGINT, signal.SIGTERM):  # after Ray, which sets handlers of its own
        signal.signal(number, lambda *_: stopped.set())
    try:
        deploy(settings)
        stopped.wait()
    finally:
        runtime.stop(proxied=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
