"""The gateway inside Ray Serve behind HAProxy, as on a cluster: ``python -m service.ingress`` as a process."""

import signal
import sys
import time
from contextlib import contextmanager

import httpx

from tests.e2e.stack import Stack, free_port


@contextmanager
def proxied(home, key, **settings):
    """One that is ready, with ``key``, for the time of the block."""
    variables = {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port()),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port()),
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",  # no balancer to wait for here
    }
    running = Stack(home, (sys.executable, "-m", "service.ingress"), variables, api_keys=key, **settings).start()
    until = time.monotonic() + 90
    try:
        while not _answers(running):
            assert running.process.poll() is None, running.story()
            assert time.monotonic() < until, running.story()
            time.sleep(0.5)
        yield running
    finally:
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(30) == 0
        assert running.gone(10) == []


def _answers(running):
    try:
        return httpx.get(f"{running.base_url}/readyz", timeout=5).json()["checks"]["serve"] == "ok"
    except (httpx.HTTPError, ValueError, KeyError):
        return False
