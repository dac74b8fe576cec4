"""One gateway for the contract tests: the real application under uvicorn, real Valkey, a real worker.

Inference runs on the in-process backend, so that no test here waits for Ray; the end-to-end tests run on Ray.
"""

import os
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import uvicorn

from models.core.registry import Registry
from service.app import create_app
from service.settings import Settings
from tests.contract.small import train_small_methods
from workers.valkey import EmbeddedValkey

KEY = "dn_contract-tests"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass(frozen=True)
class Gateway:
    """A running gateway and what was set up for it."""

    url: str
    settings: Settings
    app: object

    def client(self, key=KEY, **options):
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=60, **options)


@pytest.fixture(scope="session")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def redis_url(home):
    valkey = EmbeddedValkey(home)
    yield valkey.start()
    valkey.stop()


def serve(settings):
    """Run a gateway in a thread; yields it, then stops it."""
    app = create_app(settings)
    config = uvicorn.Config(app, host=settings.host, port=settings.port, log_level="warning", access_log=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    url = f"http://{settings.host}:{settings.port}"
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if server.started and httpx.get(f"{url}/readyz").json()["checks"]["serve"] == "ok":
            break
        time.sleep(0.05)
    else:
        raise TimeoutError("the gateway did not become ready")
    yield Gateway(url, settings, app)
    server.should_exit = True
    thread.join(15)


@pytest.fixture(scope="session")
def gateway(home, redis_url):
    settings = Settings(
        home=home, port=free_port(), redis_url=redis_url, backend="in-process", api_keys=KEY, concurrent_jobs=50
    )
    yield from serve(settings)


@pytest.fixture(scope="session")
def worker(gateway):
    environment = os.environ | {
        "DEEPNIGHT_HOME": str(gateway.settings.home),
        "DEEPNIGHT_REDIS_URL": gateway.settings.redis_url,
        "DEEPNIGHT_DRAIN_S": "1",
    }
    process = subprocess.Popen([sys.executable, "-m", "workers"], env=environment, cwd=Path(__file__).parents[2])
    yield process
    process.terminate()
    process.wait(15)


@pytest.fixture(scope="session")
def client(gateway):
    with gateway.client() as http:
        yield http


@pytest.fixture(scope="session")
def registry():
    return Registry()


@pytest.fixture(scope="session")
def small_methods(tmp_path_factory):
    """The methods of the folder beside this file, trained: a generator of digits and a summariser."""
    return train_small_methods(tmp_path_factory.mktemp("methods"), tmp_path_factory.mktemp("training"))


@pytest.fixture(scope="session")
def capable(small_methods, redis_url, tmp_path_factory):
    """A gateway and a worker with those methods."""
    home = tmp_path_factory.mktemp("capable")
    settings = Settings(
        home=home,
        port=free_port(),
        redis_url=redis_url.replace("?db=0", "?db=1"),
        backend="in-process",
        api_keys=KEY,
        methods_path=str(small_methods),
        queue_limit=64,
    )
    environment = os.environ | {
        "DEEPNIGHT_HOME": str(home),
        "DEEPNIGHT_REDIS_URL": settings.redis_url,
        "DEEPNIGHT_METHODS_PATH": str(small_methods),
        "DEEPNIGHT_DRAIN_S": "1",
    }
    process = subprocess.Popen([sys.executable, "-m", "workers"], env=environment, cwd=Path(__file__).parents[2])
    yield from serve(settings)
    process.terminate()
    process.wait(15)
