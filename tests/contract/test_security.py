"""What an attacker would try at the door; each line of docs/security.md that speaks of HTTP has its test here."""

import contextlib
import json
import socket
import subprocess
import sys
import threading
import time

import pytest

from tests.contract.conftest import KEY

DEEP = "[" * 50_000 + "]" * 50_000
HEAD = f"POST /v1/distances HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {KEY}\r\nContent-Type: application/json\r\n"
HIDDEN = "GET /v1/models HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


def raw(gateway, text):
    """Everything that comes back for these bytes until the gateway closes or is silent for a second."""
    with socket.create_connection(("127.0.0.1", gateway.settings.port), timeout=1) as connection:
        connection.sendall(text.encode())
        received = b""
        with contextlib.suppress(TimeoutError):
            while chunk := connection.recv(65536):
                received += chunk
    return received


@pytest.mark.parametrize(
    "framing",
    [
        f"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{HIDDEN}",
        f"Content-Length: 2\r\nContent-Length: {2 + len(HIDDEN)}\r\n\r\n{{}}{HIDDEN}",
        f"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n{HIDDEN}",
        f"Content-Length: +2\r\n\r\n{{}}{HIDDEN}",
        f"Content-Length: 0x2\r\n\r\n{{}}{HIDDEN}",
        f"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n{HIDDEN}",
    ],
    ids=["both lengths", "two lengths", "two encodings", "signed", "hexadecimal", "space before the colon"],
)
def test_a_request_whose_end_is_ambiguous_ends_the_connection(gateway, framing):
    answers = raw(gateway, HEAD + framing).count(b"HTTP/1.1 ")
    assert answers <= 1, "a second request was seen in the first one's body"


def test_what_follows_a_body_is_a_request_of_its_own(gateway):
    """The counterpart: with a clear end, the same bytes are two requests, so the test above can fail."""
    assert raw(gateway, f"{HEAD}Content-Length: 2\r\n\r\n{{}}{HIDDEN}").count(b"HTTP/1.1 ") == 2


@pytest.mark.parametrize("body", [DEEP, '{"model": ' + DEEP + "}", '{"a":' * 50_000 + "1" + "}" * 50_000])
@pytest.mark.parametrize("route", ["/v1/embeddings", "/v1/distances", "/v1/jobs", "/v2/models/aum/infer"])
def test_depth_of_json_is_bounded(client, route, body):
    answer = client.post(route, content=body, headers={"content-type": "application/json"})
    assert 400 <= answer.status_code < 500, answer.text[:300]


NAMES = [
    *("..%2f..%2fetc%2fpasswd", "%00", "\u0430um", "aum\u202e", "aum%0d%0aX-Evil: 1"),
    *("a" * 5000, "~", "%ff%fe", "\uff0e\uff0e"),
]


@pytest.mark.parametrize("name", NAMES, ids=[ascii(name[:20]) for name in NAMES])
@pytest.mark.parametrize(
    "route",
    ["/v1/models/{}", "/v1/models/{}/figures", "/v1/jobs/{}", "/v1/jobs/x/artifacts/{}", "/v1/datasets/{}/content"],
)
def test_names_lead_nowhere(client, route, name):
    answer = client.get(route.format(name))
    assert answer.status_code in (404, 414, 422), answer.text[:300]
    assert "x-evil" not in answer.headers


@pytest.mark.parametrize("text", ["(" * 3000, "a" * 50_000 + "!", "<" * 50_000, "\u0301" * 20_000, "\ufdfa" * 20_000])
def test_no_text_takes_long_to_be_refused(client, text):
    started = time.monotonic()
    for body in ({"model": text, "input": "x"}, {"model": "aum", "input": text}, {"model": "aum", "input": [text]}):
        assert 400 <= client.post("/v1/classifications", json=body).status_code < 500
    assert time.monotonic() - started < 5


def test_no_address_is_ever_fetched(client):
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(1)
    came = []

    def accept():
        with contextlib.suppress(TimeoutError):
            came.append(listener.accept())

    thread = threading.Thread(target=accept)
    thread.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/picture.png"
    for item in (url, {"type": "image_url", "image_url": {"url": url}}, {"type": "image", "url": url}, {"url": url}):
        for route in ("/v1/embeddings", "/v1/classifications"):
            model = "align-uniform" if route.endswith("embeddings") else "aum"
            answer = client.post(route, json={"model": model, "input": [item]})
            assert answer.status_code == 422, answer.text
    assert client.post("/v1/datasets", data={"url": url}).status_code in (415, 422)
    thread.join()
    listener.close()
    assert came == []


def test_headers_cannot_be_split(gateway):
    answer = raw(gateway, "GET /healthz HTTP/1.1\r\nHost: x\r\nX-Request-Id: a\rX-Evil: 1\r\nConnection: close\r\n\r\n")
    head = answer.partition(b"\r\n\r\n")[0].lower()
    assert b"\nx-evil" not in head.replace(b"\r", b"\n")


def test_a_log_line_is_one_line(tmp_path):
    code = (
        "import sys, structlog; from service import logs; from service.settings import Settings;"
        "logs.configure(Settings(log_format='json'));"
        "structlog.get_logger('x').info('request', model=sys.argv[1])"
    )
    forged = 'x\n{"event": "forged"}\r\u2028'
    done = subprocess.run([sys.executable, "-c", code, forged], capture_output=True, text=True, check=True)
    (line,) = (done.stdout + done.stderr).strip().split("\n")
    assert json.loads(line)["model"] == forged


def test_secrets_are_in_no_answer(client, gateway):
    for route in ("/metrics", "/version", "/readyz", "/openapi.json", "/v1/models"):
        assert KEY not in client.get(route).text
    problem = client.post("/v1/embeddings", json={"model": "none", "input": KEY})
    assert KEY not in json.dumps(problem.json())
