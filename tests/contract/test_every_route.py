"""What every route of the OpenAPI document keeps: keys, scopes, problem documents, request ids, strict bodies."""

import asyncio
import re
import socket
import subprocess
import sys
import time

import httpx
import pytest

from service.app import InsecureError, create_app
from service.metrics import Metrics
from service.services import make_services
from service.settings import Settings

OPEN = {"/healthz", "/readyz", "/version", "/metrics", "/v2", "/v2/health/live", "/v2/health/ready"}


@pytest.fixture(scope="session")
def document(client):
    return client.get("/openapi.json").json()


def routes(document, *, body=None):
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            content = operation.get("requestBody", {}).get("content", {})
            if body is None or body in content:
                yield method.upper(), re.sub(r"{[^}]+}", "x", path), path


def check_problem(answer, status):
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert {"type", "title", "status", "detail", "instance"} <= problem.keys()
    assert problem["status"] == status
    assert problem["instance"] == answer.headers["x-request-id"]
    assert "Traceback" not in answer.text
    return problem


def test_no_route_answers_without_a_key(gateway, document):
    with gateway.client(key=None) as http:
        for method, url, path in routes(document):
            answer = http.request(method, url)
            if path in OPEN:
                assert answer.status_code in (200, 503)
            else:
                check_problem(answer, 401)
                assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("header", ["Bearer", "Basic abc", "Bearer dn_wrong", "dn_contract-tests"])
def test_wrong_keys(gateway, header):
    check_problem(httpx.get(f"{gateway.url}/v1/models", headers={"Authorization": header}), 401)


def test_scopes_are_needed(gateway, document):
    keys = gateway.app.state.services.keys
    key, secret = keys.create("only data", ["data"])
    try:
        gateway.app.state.authenticator._refreshed = float("-inf")
        with gateway.client(key=secret) as http:
            assert http.get("/v1/datasets").status_code == 200
            problem = check_problem(http.post("/v1/embeddings", json={"model": "x", "input": "y"}), 403)
            assert "infer" in problem["detail"]
            assert http.get("/v1/jobs").status_code == 403
            assert http.put("/v1/models/x/default", json={"version": "1"}).status_code == 403
    finally:
        keys.revoke(key.id)
    gateway.app.state.authenticator._refreshed = float("-inf")
    with gateway.client(key=secret) as http:
        check_problem(http.get("/v1/datasets"), 401)


def test_json_bodies_are_read_strictly(client, document):
    checked = 0
    for method, url, path in routes(document, body="application/json"):
        if path.startswith("/v2"):
            continue  # its bodies are read by the tensor codec
        checked += 1
        send = {"content-type": "application/json"}
        check_problem(client.request(method, url, content=b'{"model": ', headers=send), 400)
        check_problem(client.request(method, url, content=b'{"model": NaN}', headers=send), 400)
        check_problem(client.request(method, url, content=b'{"model": "\xff"}', headers=send), 400)
        check_problem(client.request(method, url, content=b"[" * 5000, headers=send), 400)
        check_problem(client.request(method, url, content=b"a=b", headers={"content-type": "text/plain"}), 415)
        problem = check_problem(client.request(method, url, json={}), 422)
        assert problem["errors"][0]["field"].startswith("/")
        check_problem(client.request(method, url, json=[1, 2]), 422)
    assert checked >= 5


def test_unknown_fields_are_refused_but_on_openai_routes(client):
    body = {"model": "x", "input": "y", "new_in_2027": True}
    assert client.post("/v1/embeddings", json=body).status_code == 404  # the model, not the field
    problem = check_problem(client.post("/v1/classifications", json=body), 422)
    assert problem["errors"][0]["field"] == "/new_in_2027"


def test_unknown_models_are_404_with_openais_error(client):
    for model in ("no-such-model", "aum@no-such-version", "../../etc/passwd", "a@b@c", "x" * 200):
        problem = check_problem(client.post("/v1/embeddings", json={"model": model, "input": "x"}), 404)
        assert problem["error"]["param"] == "model"
        assert problem["error"]["code"] == "model_not_found"


def test_wrong_capability_names_the_model(client):
    problem = check_problem(client.post("/v1/embeddings", json={"model": "otdd", "input": "x"}), 400)
    assert problem["errors"][0]["field"] == "/model"


def test_wrong_methods_and_paths(client):
    check_problem(client.delete("/v1/embeddings"), 405)
    check_problem(client.get("/v1/nothing"), 404)


@pytest.mark.parametrize(("sent", "kept"), [("abc-123", True), ("x" * 128, True), ("x" * 129, False), ("a b", False)])
def test_request_ids(client, sent, kept):
    answer = client.get("/healthz", headers={"X-Request-Id": sent})
    assert (answer.headers["x-request-id"] == sent) is kept
    assert answer.headers["x-request-id"]


@pytest.mark.parametrize("prefer", ["wait=abc", "wait=-1", "wait=0", "wait="])
def test_prefer_wait_must_be_seconds(client, prefer):
    body = {"model": "robust-ot", "a": {"points": [[1.0]]}, "b": {"points": [[1.0]]}}
    problem = check_problem(client.post("/v1/distances", json=body, headers={"Prefer": prefer}), 400)
    assert problem["errors"][0]["field"] == "Prefer"


def test_bodies_are_bounded_declared_or_streamed(gateway):
    limit = gateway.settings.max_body_bytes
    with socket.create_connection(("127.0.0.1", gateway.settings.port), timeout=10) as raw:
        head = f"POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Length: {limit + 1}\r\n\r\n"
        raw.sendall(head.encode())
        assert raw.recv(64).startswith(b"HTTP/1.1 413 ")

    def stream():
        for _ in range(limit // (1 << 20) + 1):
            yield b" " * (1 << 20)

    with gateway.client() as http:
        answer = http.post("/v1/embeddings", content=stream(), headers={"content-type": "application/json"})
        check_problem(answer, 413)


def test_a_client_that_leaves_in_the_middle_of_its_body_is_no_error_of_ours(gateway, client):
    with socket.create_connection(("127.0.0.1", gateway.settings.port), timeout=10) as raw:
        head = "POST /v1/embeddings HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99\r\n"
        raw.sendall(f"{head}Authorization: Bearer dn_contract-tests\r\n\r\n{{".encode())
    counted = 'deepnight_http_requests_total{method="POST",route="/v1/embeddings",status="499"}'
    until = time.monotonic() + 10
    while counted not in client.get("/metrics").text:
        assert time.monotonic() < until
        time.sleep(0.05)


def test_rate_limit_says_when_to_come_back(tmp_path):
    settings = Settings(home=tmp_path, backend="in-process", api_keys="dn_limited", requests_per_minute=3)
    app = create_app(settings)

    async def ask():
        transport = httpx.ASGITransport(app=app)
        headers = {"Authorization": "Bearer dn_limited"}
        async with httpx.AsyncClient(transport=transport, base_url="http://test", headers=headers) as http:
            return [await http.get("/v1/models") for _ in range(4)]

    *allowed, refused = asyncio.run(ask())
    assert [answer.status_code for answer in allowed] == [200, 200, 200]
    assert [answer.headers["ratelimit-remaining"] for answer in allowed] == ["2", "1", "0"]
    check_problem(refused, 429)
    assert 1 <= int(refused.headers["retry-after"]) <= 20


def test_the_gateway_never_imports_torch(tmp_path):
    code = (
        "import sys\nfrom service.app import create_app\nfrom service.settings import Settings\n"
        f"create_app(Settings(home={str(tmp_path)!r}, backend='ray')).openapi()\nsys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_without_keys_only_loopback_is_served(tmp_path):
    app = create_app(Settings(home=tmp_path, host="0.0.0.0", backend="in-process"))

    async def start():
        async with app.router.lifespan_context(app):
            pass

    with pytest.raises(InsecureError, match="deepnight keys create"):
        asyncio.run(start())


def test_services_are_made_without_contacting_anything(tmp_path):
    settings = Settings(home=tmp_path, backend="in-process", redis_url="redis://127.0.0.1:1/0")
    assert make_services(settings, Metrics()).registry
