"""A trace through the real processes: gateway, Ray's replica, worker and job."""

import time

import pytest

from tests.e2e.collector import Collector, attributes
from tests.e2e.stack import Stack

pytestmark = [pytest.mark.stack, pytest.mark.slow]
DISTANCE = {"model": "robust-ot", "a": {"points": [[0, 0], [1, 0]]}, "b": {"points": [[0, 1], [1, 1]]}}
TRACES = {"inline": "11" * 16, "job": "22" * 16}


@pytest.fixture
def collector(monkeypatch):
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http", reason="the OTLP exporter is not installed")
    with Collector() as running:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", running.url)
        yield running
        running.shutdown()


def test_request_replica_and_job_are_seen(collector, tmp_path):
    stack = Stack(tmp_path).start()
    try:
        stack.wait_ready()
        with stack.client() as client:
            headers = {"traceparent": f"00-{TRACES['inline']}-{'33' * 8}-01"}
            assert client.post("/v1/distances", json=DISTANCE, headers=headers).status_code == 200
            headers = {"traceparent": f"00-{TRACES['job']}-{'33' * 8}-01", "Prefer": "respond-async"}
            job = client.post("/v1/distances", json=DISTANCE, headers=headers).json()
            assert client.get(f"/v1/jobs/{job['id']}?wait=50").json()["status"] == "succeeded"
        until = time.monotonic() + 20  # each process sends every five seconds
        wanted = {(TRACES["inline"], "POST /v1/distances"), (TRACES["inline"], "predict")}
        wanted |= {(TRACES["job"], "POST /v1/distances"), (TRACES["job"], "job predict")}
        while not wanted <= (seen := {(span.trace_id.hex(), span.name) for span in collector.spans()}):
            assert time.monotonic() < until, (wanted - seen, stack.story())
            time.sleep(0.5)
        (run,) = (span for span in collector.spans() if span.name == "job predict")
        assert attributes(run)["deepnight.job"] == job["id"]
    finally:
        stack.stop()
        for process in stack.gone(5):
            process.kill()
