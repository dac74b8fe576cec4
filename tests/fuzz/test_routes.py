"""Every route of the OpenAPI document under generated requests, right and wrong: no answer is a failure of the service.

``make test`` tries a few for each route, ``make fuzz`` some thousands.
"""

import json
import os
import zlib

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings

from models.core.registry import Registry
from service.app import create_app
from service.settings import Settings
from tests.contract.conftest import KEY, free_port, serve
from tests.contract.examples import ROUTES
from workers.valkey import EmbeddedValkey

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "4"))
SECONDS = 60
schema = schemathesis.openapi.from_dict(create_app(Settings(backend="in-process", api_keys=KEY)).openapi())
REGISTRY = Registry()
CAPABILITIES = {route: capability for capability, route in ROUTES.items()}


def known(name, route):
    """Three of four made-up names become one of a model that the route has, so that what lies behind it is reached."""
    wanted = CAPABILITIES.get(route)
    fitting = [entry.slug for entry in REGISTRY.values() if wanted in (None, entry.card.capability)]
    number = zlib.crc32(repr(name).encode())
    return fitting[number // 4 % len(fitting)] if number % 4 else name


@schema.hook
def map_path_parameters(context, path_parameters):
    given, route = path_parameters or {}, context.operation.path
    return {name: known(value, route) if name in ("model", "slug") else value for name, value in given.items()}


@schema.hook
def map_body(context, body):
    if not isinstance(body, dict) or "model" not in body:
        return body
    return body | {"model": known(body["model"], context.operation.path)}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory):
    """A gateway with nothing to lose."""
    home = tmp_path_factory.mktemp("fuzz")
    valkey = EmbeddedValkey(home)
    own = Settings(home=home, port=free_port(), redis_url=valkey.start(), backend="in-process", api_keys=KEY)
    yield from serve(own)
    valkey.stop()


@schema.parametrize()
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    phases=(Phase.explicit, Phase.generate),
    suppress_health_check=list(HealthCheck),
    derandomize=EXAMPLES < 10,
)
def test_no_request_makes_it_fail(case, gateway, answers):
    response = case.call(base_url=gateway.url, headers={"Authorization": f"Bearer {KEY}"}, timeout=SECONDS)
    answers[f"{case.method} {case.path}", response.status_code] += 1
    said = f"{response.status_code} {response.text[:500]}\n{case.as_curl_command()}"
    assert response.status_code < 500 or is_told(response), said
    if 400 <= response.status_code < 500:
        assert response.headers["content-type"] == ["application/problem+json"], said
        assert json.loads(response.text), said


def is_told(response):
    """Whether a 5xx says that the service is busy or lacks something, with the time to come back."""
    return response.status_code == 503 and "retry-after" in response.headers
