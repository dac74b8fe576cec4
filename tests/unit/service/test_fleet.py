"""Several gateways and a worker on one Redis: what a scrape of any of them says, also after one of them died."""

import asyncio

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from service.metrics import MOST_LABELS, Metrics
from service.settings import Settings
from workers.client import JobsClient, QueueUnavailableError
from workers.connect import patient
from workers.sharing import WorkerSharing, usage
from workers.valkey import EmbeddedValkey


@pytest.fixture
def valkey(tmp_path):
    server = EmbeddedValkey(tmp_path)
    server.start()
    yield server
    server.stop()


@pytest.fixture
def run():
    with asyncio.Runner() as runner:
        yield runner.run


@pytest.fixture
def jobs(valkey, tmp_path, run):
    async def connect():
        return JobsClient(valkey.url, Settings(home=tmp_path))

    client = run(connect())
    yield client
    run(client.close())


class Flaky:
    """The way to Redis, on which answers get lost."""

    def __init__(self, jobs):
        self.jobs = jobs
        self.lost = False

    async def exchange(self, message):
        shared = await self.jobs.exchange(message)
        if self.lost:
            raise QueueUnavailableError
        return shared


def sample(metrics, name, **labels):
    registry = CollectorRegistry()
    registry.register(metrics.fleet)
    return registry.get_sample_value(name, labels)


def requests(metrics):
    return sample(metrics, "deepnight_http_requests_total", route="/x", method="GET", status="200")


def test_every_gateway_shows_the_sum_and_a_dead_one_stays_counted(jobs, run):
    first, second = Metrics(), Metrics()
    for metrics, count in ((first, 3), (second, 4)):
        for _ in range(count):
            metrics.answered("/x", "GET", 200, 0.02)
        run(metrics.fleet.exchange(jobs, {}))
    run(first.fleet.exchange(jobs, {}))
    assert requests(first) == requests(second) == 7
    bucket = {"route": "/x", "method": "GET", "le": "0.025"}
    assert sample(first, "deepnight_http_request_duration_seconds_bucket", **bucket) == 7
    assert sample(first, "deepnight_http_request_duration_seconds_sum", route="/x", method="GET") == pytest.approx(0.14)
    successor = Metrics()  # of the second, which was killed
    successor.answered("/x", "GET", 200, 0.02)
    assert requests(successor) == 1
    run(successor.fleet.exchange(jobs, {}))
    assert requests(successor) == 8
    assert sample(successor, "deepnight_process_starts_total", role="gateway") == 3


def test_what_was_sent_twice_counts_once(jobs, run):
    metrics, way = Metrics(), Flaky(jobs)
    metrics.answered("/x", "GET", 200, 0.02)
    way.lost = True
    with pytest.raises(QueueUnavailableError):
        run(metrics.fleet.exchange(way, {}))
    metrics.answered("/x", "GET", 200, 0.02)
    assert requests(metrics) == 2
    way.lost = False
    for _ in range(2):
        run(metrics.fleet.exchange(way, {}))
        assert requests(metrics) == 2


def test_what_was_shared_between_scrapes_counts_once(jobs, run):
    metrics = Metrics()
    for count in (1, 2, 3):
        metrics.answered("/x", "GET", 200, 0.02)
        assert requests(metrics) == count
        run(metrics.fleet.share(jobs, {}))
        assert requests(metrics) == count
    run(metrics.fleet.exchange(jobs, {}))
    assert requests(metrics) == 3


def test_gauges_are_those_of_the_living(jobs, run):
    first, second = Metrics(), Metrics()
    views = ({"a@1": "ready", "b@1": "cold"}, {"a@1": "cold", "b@1": "loading"})
    for metrics, models in zip((first, second), views, strict=True):
        run(metrics.fleet.exchange(jobs, {"in_flight": 2, "waiting": {"a@1": 5}, "models": models}))
    assert sample(second, "deepnight_http_requests_in_flight") == 4
    assert sample(second, "deepnight_inference_waiting", model="a@1") == 10
    assert sample(second, "deepnight_model_state", model="a@1", state="ready") == 1
    assert sample(second, "deepnight_model_state", model="a@1", state="cold") == 0
    assert sample(second, "deepnight_model_state", model="b@1", state="loading") == 1
    assert sample(second, "deepnight_processes", role="gateway") == 2
    assert sample(second, "deepnight_process_resident_memory_bytes", role="gateway") > 20 << 20
    run(first.fleet.leave(jobs))
    run(second.fleet.exchange(jobs, {}))
    assert sample(second, "deepnight_processes", role="gateway") == 1


def test_without_redis_a_gateway_tells_of_itself(jobs, valkey, run):
    other, metrics = Metrics(), Metrics()
    other.answered("/x", "GET", 200, 0.02)
    run(other.fleet.exchange(jobs, {"in_flight": 7}))
    run(metrics.fleet.exchange(jobs, {}))
    valkey.stop()
    metrics.answered("/x", "GET", 200, 0.02)
    with pytest.raises(QueueUnavailableError):
        run(metrics.fleet.exchange(jobs, {"in_flight": 1}))
    assert requests(metrics) == 2, "the other's share is still known"
    assert sample(metrics, "deepnight_http_requests_in_flight") == 1
    assert sample(metrics, "deepnight_processes", role="gateway") == 1
    valkey.start()
    run(metrics.fleet.exchange(jobs, {}))
    assert requests(metrics) == 2


def test_workers_and_their_jobs_are_seen(jobs, valkey, run):
    connection = patient(valkey.url, decode=True)
    worker, metrics = WorkerSharing(connection), Metrics()
    worker.job_started()
    worker.share(1)
    run(metrics.fleet.exchange(jobs, {}))
    for role in ("worker", "job"):
        assert sample(metrics, "deepnight_processes", role=role) == 1
        assert sample(metrics, "deepnight_process_starts_total", role=role) == 1
        assert sample(metrics, "deepnight_process_cpu_seconds_total", role=role) > 0
        assert sample(metrics, "deepnight_process_resident_memory_bytes", role=role) > 0
    worker.job_ended()
    worker.end()
    run(metrics.fleet.exchange(jobs, {}))
    assert [sample(metrics, "deepnight_processes", role=role) for role in ("worker", "job")] == [0, 0]
    connection.close()


def test_labels_that_users_can_make_stay_few():
    metrics = Metrics()
    for number in range(MOST_LABELS + 50):
        metrics.predicted(f"sam@{number}", "ok", 1, 0.1)
    families = {family.name: family for family in metrics.registry.collect()}
    names = {sample.labels["model"] for sample in families["deepnight_inference_requests"].samples}
    assert len(names) == MOST_LABELS + 1
    assert "sam@other" in names
    lines = generate_latest(metrics.registry).decode()
    assert 'deepnight_inference_requests_total{model="sam@other",outcome="ok"} 50.0' in lines


def test_the_usage_of_a_process_that_is_gone_is_unknown():
    assert usage(4_194_304) is None
