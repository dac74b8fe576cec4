"""``python -m service``: one gateway process, uvicorn as the Ray driver."""

from __future__ import annotations

import gc
import sys

import uvicorn

from service import logs
from service.app import create_app
from service.settings import Settings


def run_gateway(settings: Settings) -> int:
    """Serve until SIGINT or SIGTERM; the exit status."""
    logs.configure(settings)
    gc.set_threshold(20_000, 20, 50)  # a batch of requests makes thousands of short-lived objects
    config = uvicorn.Config(
        create_app(settings),
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http="httptools",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=5,
    )
    server = uvicorn.Server(config)
    server.run()
    return 0 if server.started else 1


if __name__ == "__main__":
    sys.exit(run_gateway(Settings()))
