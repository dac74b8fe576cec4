"""Prometheus metrics of the gateway. Every label is bounded: route templates, methods found, key names."""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator
from functools import cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from service import __version__
from workers.stats import QueueStats

LATENCY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048)
MODEL_STATES = ("cold", "loading", "ready", "failed")


class Metrics:
    """The gateway's metrics in a registry of its own, so that several gateways can live in one test process."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "deepnight_http_requests", "HTTP requests answered", ["route", "method", "status"], registry=registry
        )
        self.request_duration = Histogram(
            "deepnight_http_request_duration_seconds",
            "Time from the request's first byte to the answer's last",
            ["route", "method"],
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self.in_flight = Gauge("deepnight_http_requests_in_flight", "HTTP requests being answered", registry=registry)
        self.inference = Counter(
            "deepnight_inference_requests", "Inputs predicted", ["model", "outcome"], registry=registry
        )
        self.inference_duration = Histogram(
            "deepnight_inference_duration_seconds",
            "Time from a request's entry into the coalescer to its outputs",
            ["model"],
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self.batch_size = Histogram(
            "deepnight_inference_batch_size",
            "Inputs in one call of a replica",
            ["model"],
            buckets=BATCH_BUCKETS,
            registry=registry,
        )
        self.model_load = Histogram(
            "deepnight_model_load_seconds",
            "Time to load and warm a version",
            ["model"],
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self.model_state = Gauge(
            "deepnight_model_state", "1 for the state that a model is in", ["model", "state"], registry=registry
        )
        self.rate_limited = Counter(
            "deepnight_rate_limited", "Requests refused by a key's rate limit", ["key"], registry=registry
        )
        self.dependency_up = Gauge(
            "deepnight_dependency_up", "1 where the dependency answers", ["dependency"], registry=registry
        )
        build = Gauge("deepnight_build_info", "What is running", ["version", "python"], registry=registry)
        build.labels(__version__, platform.python_version()).set(1)
        # `labels` takes a lock and builds a key each time; the children are few and never removed.
        self._request = cache(lambda route, method, status: self.requests.labels(route, method, str(status)))
        self._request_seconds = cache(self.request_duration.labels)
        self._predicted = cache(self.inference.labels)
        self._predicted_seconds = cache(self.inference_duration.labels)
        self.batch_of = cache(self.batch_size.labels)
        self.queue = QueueCollector()
        registry.register(self.queue)

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count one HTTP request."""
        self._request(route, method, status).inc()
        self._request_seconds(route, method).observe(seconds)

    def predicted(self, model: str, outcome: str, inputs: int, seconds: float) -> None:
        """Count the inputs of one call of the inference."""
        self._predicted(model, outcome).inc(inputs)
        self._predicted_seconds(model).observe(seconds)

    def set_model_states(self, states: dict[str, str]) -> None:
        """Publish the states of the models."""
        for model, current in states.items():
            for state in MODEL_STATES:
                self.model_state.labels(model, state).set(state == current)


class QueueCollector(Collector):
    """Metrics of jobs and workers, from the latest look at the queue."""

    def __init__(self) -> None:
        self.latest: QueueStats | None = None
        self.looked_at = 0.0

    def keep(self, stats: QueueStats) -> None:
        """Remember ``stats`` as the latest look."""
        self.latest, self.looked_at = stats, time.monotonic()

    def collect(self) -> Iterator[Metric]:
        """Yield the families; none while the queue was never reached."""
        stats = self.latest
        if stats is None:
            return
        jobs = GaugeMetricFamily("deepnight_jobs", "Jobs kept, by status", labels=["kind", "status"])
        for (kind, status), count in stats.jobs.items():
            jobs.add_metric([kind, status], count)
        yield jobs
        age = GaugeMetricFamily(
            "deepnight_queue_oldest_job_age_seconds", "Age of the oldest queued job", labels=["queue"]
        )
        age.add_metric([stats.queue], stats.oldest_queued_seconds)
        yield age
        workers = GaugeMetricFamily("deepnight_workers", "Workers with a heartbeat", labels=["state"])
        for state, count in stats.workers.items():
            workers.add_metric([state], count)
        yield workers
        wait = HistogramMetricFamily("deepnight_job_wait_seconds", "Time queued", labels=["kind"])
        for kind, histogram in stats.wait.items():
            wait.add_metric([kind], histogram.buckets, histogram.sum)
        yield wait
        duration = HistogramMetricFamily(
            "deepnight_job_duration_seconds", "Time from start to final status", labels=["kind", "status"]
        )
        for (kind, status), histogram in stats.duration.items():
            duration.add_metric([kind, status], histogram.buckets, histogram.sum)
        yield duration
