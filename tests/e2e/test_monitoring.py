"""What Prometheus sees of a running service, and that every panel and alert asks for something that is there."""

import os
import shutil
import subprocess
import sys
import time

import httpx
import psutil
import pytest

from models.core.registry import Registry
from tests.contract.examples import example_item
from tests.e2e.prometheus import METRIC, Prometheus, panels
from tests.e2e.stack import ROOT, environment, free_port

pytestmark = [
    pytest.mark.stack,
    pytest.mark.skipif(not shutil.which("prometheus"), reason="no prometheus: apt-get install prometheus"),
]

DISTANCE = {"model": "robust-ot", "a": {"points": [[0, 0], [1, 0]]}, "b": {"points": [[0, 1], [1, 1]]}}
# Empty on a healthy service with an embedded Valkey; the rules' unit tests show that they are not always.
EMPTY = {"deepnight_redis_memory_limit_bytes > 0"}
SUM = "sum(deepnight_http_requests_total{%s}) or vector(0)"


@pytest.fixture(scope="module")
def prometheus(stack, tmp_path_factory):
    with Prometheus(tmp_path_factory.mktemp("prometheus"), stack.port, stack.settings["ray_metrics_port"]) as running:
        yield running


@pytest.fixture(scope="module")
def sent(stack, prometheus):
    """Requests of several kinds over some seconds, and a job; how many distances were asked for."""
    asked = 'route="/v1/distances",status="200"'
    with stack.client() as client:
        seen = 'timestamp(deepnight_build_info{job="deepnight"}) > %f' % (time.time() + 3)  # what others did is sent
        prometheus.until(lambda: prometheus.query(seen), "a scrape")
        before = prometheus.value(SUM % asked)
        spec = Registry()["align-uniform"].shipped().config.input
        pictures = {"model": "align-uniform", "input": [example_item(spec, seed) for seed in range(4)]}
        answer = client.post("/v1/distances", json=DISTANCE, headers={"Prefer": "respond-async"})
        assert answer.status_code == 202, answer.text
        count, until = 0, time.monotonic() + 12
        while time.monotonic() < until:
            assert client.post("/v1/distances", json=DISTANCE).status_code == 200
            assert client.post("/v1/embeddings", json=pictures).status_code == 200
            assert client.post("/v1/embeddings", json={"model": "none", "input": "x"}).status_code == 404
            count += 1
        job = client.get(f"/v1/jobs/{answer.json()['id']}?wait=30").json()
        assert job["status"] == "succeeded", job
    return before, count, asked


def test_it_counts_what_was_sent(prometheus, sent):
    before, count, asked = sent
    prometheus.until(lambda: prometheus.value(SUM % asked) == before + count, "the counts agree")
    assert prometheus.value('count(up{job=~"deepnight|ray"} == 1)') == 2


def test_every_panel_has_data(prometheus, sent):
    def empty():
        return [found for found in panels() if found[2] not in EMPTY and not prometheus.query(found[2])]

    prometheus.until(lambda: not empty(), empty)


def test_every_rule_is_healthy_and_asks_for_what_is_there(prometheus, sent):
    rules = prometheus.until(
        lambda: (found := prometheus.rules()) and all(rule["health"] == "ok" for rule in found) and found, "rules"
    )
    assert len(rules) > 25
    for rule in rules:
        for name in METRIC.findall(rule["query"]):
            prometheus.until(lambda name=name: prometheus.query(f"count({name})"), f"{name} of {rule['name']}")
    firing = {rule["name"] for rule in rules if rule.get("state") == "firing"}
    assert firing <= {"DeepnightDiskLow", "DeepnightDiskFull"}, "a healthy service, if not on a healthy disk"


def test_promtool_finds_nothing_to_say_about_the_metrics(stack, sent):
    with stack.client() as client:
        text = client.get("/metrics").text
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_nothing_but_buckets_has_many_series(prometheus, sent):
    counts = prometheus.query('count by (__name__) ({__name__=~"deepnight_.*", job="deepnight"})')
    sizes = {found["metric"]["__name__"]: float(found["value"][1]) for found in counts}
    assert max(size for name, size in sizes.items() if not name.endswith("_bucket")) < 120, sizes


def test_two_gateways_say_the_same_and_a_killed_one_stays_counted(stack, prometheus, sent):
    (gateway,) = (psutil.Process(pid) for pid in stack.pids("-m", "service"))
    port = free_port()
    variables = environment(stack.home, port, backend="in-process", redis_url=gateway.environ()["DEEPNIGHT_REDIS_URL"])
    second = subprocess.Popen([sys.executable, "-m", "service"], cwd=ROOT, env=variables, stderr=subprocess.DEVNULL)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            prometheus.until(lambda: client.get("/readyz").status_code == 200, "the second gateway", 60)
            for _ in range(5):
                assert client.post("/v1/distances", json=DISTANCE).status_code == 200
            assert prometheus.value('sum(deepnight_processes{role="gateway"})') in (1, 2)
            asked = 'deepnight_http_requests_total{method="POST",route="/v1/distances",status="200"}'

            def counted(base_url):
                lines = httpx.get(f"{base_url}/metrics", timeout=10).text.splitlines()
                return [line for line in lines if line.startswith((asked, 'deepnight_processes{role="gateway"}'))]

            prometheus.until(lambda: counted(client.base_url) == counted(stack.base_url), "the same of both")
            told = counted(stack.base_url)
            assert told[1].endswith(" 2.0")
    finally:
        os.kill(second.pid, 9)
        second.wait()
    prometheus.until(lambda: counted(stack.base_url)[1].endswith(" 1.0"), "one gateway left", 40)
    assert counted(stack.base_url)[0] == told[0]
