"""Traces as a collector gets them, and log lines as an operator reads them: whole, and without secrets or payloads."""

import asyncio
import io
import json

import httpx
import pytest

from service import logs, tracing
from service.app import create_app
from service.settings import Settings
from tests.e2e.collector import Collector, attributes

KEY = "dn_very-secret-key"
MARK = 987654.25
BODY = {"model": "robust-ot", "a": {"points": [[0, 0], [MARK, 0]]}, "b": {"points": [[0, 1], [1, 1]]}}
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.fixture
def collector(monkeypatch):
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="the OTLP exporter is not installed")
    running = Collector()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", running.url)
    for cached in (tracing.enabled, tracing._provider):
        cached.cache_clear()
    yield running
    tracing._provider().shutdown()
    for cached in (tracing.enabled, tracing._provider):
        cached.cache_clear()
    running.shutdown()
    running.server_close()


async def ask(home, headers, path="/v1/distances", body=BODY):
    app = create_app(Settings(home=home, backend="in-process", api_keys=KEY))
    async with app.router.lifespan_context(app):
        transport = httpx.ASGITransport(app=app)
        headers = {"Authorization": f"Bearer {KEY}", **headers}
        async with httpx.AsyncClient(transport=transport, base_url="http://test", headers=headers) as http:
            return await http.post(path, json=body, timeout=60)


def test_a_request_and_its_replica_are_one_trace(collector, tmp_path):
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "X-Request-Id": "traced-1"}
    answer = asyncio.run(ask(tmp_path, headers))
    assert answer.status_code == 200, answer.text
    tracing._provider().force_flush()
    spans = {span.name: span for span in collector.spans()}
    request, call = spans["POST /v1/distances"], spans["predict"]
    assert (request.trace_id.hex(), request.parent_span_id.hex()) == (TRACE, PARENT)
    assert (call.trace_id, call.parent_span_id) == (request.trace_id, request.span_id)
    about = attributes(request)
    assert about["deepnight.request_id"] == "traced-1"
    assert about["deepnight.key"] == "environment"
    assert about["deepnight.model"] == "robust-ot@1"
    assert about["http.response.status_code"] == 200
    assert attributes(call)["deepnight.batch"] == 1
    sent = b"".join(collector.received)
    assert KEY.encode() not in sent
    assert str(MARK).encode() not in sent


def test_the_replica_of_a_batch_is_linked_to_every_request(collector):
    with tracing.call("sam@1", 3, [f"00-{TRACE}-{PARENT}-01", f"00-{'ab' * 16}-{'cd' * 8}-01"]):
        pass
    tracing._provider().force_flush()
    (span,) = collector.spans()
    assert span.trace_id.hex() == TRACE
    assert [link.trace_id.hex() for link in span.links] == ["ab" * 16]


def test_a_job_is_sent_before_its_process_ends(collector):
    with tracing.job("train", "job_1", 2, f"00-{TRACE}-{PARENT}-01"):
        pass
    (span,) = collector.spans()
    assert (span.name, span.trace_id.hex(), span.parent_span_id.hex()) == ("job train", TRACE, PARENT)
    assert attributes(span) == {"deepnight.job": "job_1", "deepnight.kind": "train", "deepnight.attempt": 2}


def test_off_unless_a_collector_is_named(monkeypatch):
    for name in tracing.ENDPOINTS:
        monkeypatch.delenv(name, raising=False)
    tracing.enabled.cache_clear()
    assert not tracing.enabled()
    assert tracing.contexts(["any"]) == ()
    with tracing.job("train", "job_1", 1, ""), tracing.call("sam@1", 1, ["anything"]):
        pass
    tracing.enabled.cache_clear()


def test_one_line_a_request_without_secrets_or_payloads(tmp_path):
    written = io.StringIO()
    logs.configure(Settings(home=tmp_path, log_format="json"), written)
    try:
        paths = ("/v1/distances", "/v1/embeddings")
        answers = [asyncio.run(ask(tmp_path, {"X-Request-Id": path}, path)) for path in paths]
    finally:
        logs.configure(Settings(home=tmp_path))
    assert [answer.status_code for answer in answers] == [200, 422]
    served, refused = (line for line in map(json.loads, written.getvalue().splitlines()) if line["event"] == "request")
    for line, answer in zip((served, refused), answers, strict=True):
        assert line["request_id"] == line["route"] == answer.request.url.path
        assert (line["key"], line["method"], line["status"]) == ("environment", "POST", answer.status_code)
    assert (served["model"], served["inputs"], served["batch"]) == ("robust-ot@1", 1, 1)
    assert 0 < served["compute_seconds"] < served["seconds"]
    for secret in (KEY, str(MARK)):
        assert secret not in written.getvalue()
