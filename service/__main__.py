"""``python -m service``: one gateway process, uvicorn as the Ray driver."""

from __future__ import annotations

import gc
import sys
import time

import uvicorn

from service import logs
from service.app import create_app
from service.connections import Laggards, WatchedProtocol
from service.inference import Inference
from service.settings import Settings

LOOK_TICKS = 50  # of a tenth of a second


class GatewayServer(uvicorn.Server):
    """Ends when inference cannot start, so that its supervisor starts another instead of one that is never ready."""

    def __init__(self, config: uvicorn.Config, inference: Inference) -> None:
        super().__init__(config)
        self._inference = inference
        self._laggards = Laggards()

    async def on_tick(self, counter: int) -> bool:
        """Whether it is time to end."""
        if counter % LOOK_TICKS == 0:
            self._laggards.end(self.server_state.connections, time.monotonic())
        return await super().on_tick(counter) or self._inference.failure() is not None


def run_gateway(settings: Settings) -> int:
    """Serve until SIGINT or SIGTERM; the exit status."""
    logs.configure(settings)
    gc.set_threshold(20_000, 20, 50)  # a batch of requests makes thousands of short-lived objects
    app = create_app(settings)
    inference: Inference = app.state.services.inference
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http=WatchedProtocol,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=5,
    )
    server = GatewayServer(config, inference)
    server.run()
    failure = inference.failure()
    if failure is not None:
        reason = " ".join(str(failure).split()) or type(failure).__name__
        print(f"error: inference could not start: {reason[:500]}", file=sys.stderr, flush=True)
        return 1
    return 0 if server.started else 1


if __name__ == "__main__":
    sys.exit(run_gateway(Settings()))
