"""Prometheus metrics of the gateway. Every label is bounded: route templates, methods found, key names."""

from __future__ import annotations

import itertools
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from service import __version__
from service.calls import Reply
from service.fleet import Fleet
from workers.sharing import usage
from workers.stats import DURATION_BOUNDS, WAIT_BOUNDS, QueueStats, empty

LATENCY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048)
MOST_LABELS = 256
FINAL = ("cancelled", "failed", "succeeded")


class Metrics:
    """The gateway's metrics in a registry of its own, so that several gateways can live in one test process.

    Attributes:
        registry: what this process measured itself.
        exposed: what a scrape shows: that of every process, the queue and the disks.
    """

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
        # The fleet shows the sum over all gateways.
        self.in_flight = Gauge("deepnight_http_requests_in_flight", "HTTP requests being answered", registry=None)
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
        self.compute_duration = Histogram(
            "deepnight_inference_compute_seconds",
            "Time that a replica spent on one call",
            ["model"],
            buckets=LATENCY_BUCKETS,
            registry=registry,
        )
        self.replica_deaths = Counter(
            "deepnight_replica_deaths", "Calls whose replica died under them", registry=registry
        )
        self.process_starts = Counter(
            "deepnight_process_starts", "Processes that began to work", ["role"], registry=registry
        )
        self.process_cpu = Counter(
            "deepnight_process_cpu_seconds", "Processor time of all processes of a role", ["role"], registry=registry
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
        self.model, self.key = Few(lambda name: f"{name.partition('@')[0]}@other"), Few(lambda _: "other")
        self._predicted = cache(lambda model, outcome: self.inference.labels(self.model(model), outcome))
        self._predicted_seconds = cache(lambda model: self.inference_duration.labels(self.model(model)))
        self.batch_of = cache(lambda model: self.batch_size.labels(self.model(model)))
        self.compute_of = cache(lambda model: self.compute_duration.labels(self.model(model)))
        for role in ("gateway", "replica", "worker", "job"):  # a counter that appears with its first event hides it
            self.process_starts.labels(role).inc(role == "gateway")
        self._cpu_seconds = 0.0
        self.queue = QueueCollector()
        self.volumes = VolumeCollector()
        self.replicas = ReplicaCollector()
        self.fleet = Fleet(registry)
        self.exposed = CollectorRegistry()
        for collector in (self.fleet, self.queue, self.volumes, self.replicas):
            self.exposed.register(collector)

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count one HTTP request."""
        self._request(route, method, status).inc()
        self._request_seconds(route, method).observe(seconds)

    def predicted(self, model: str, outcome: str, inputs: int, seconds: float) -> None:
        """Count the inputs of one call of the inference."""
        self._predicted(model, outcome).inc(inputs)
        self._predicted_seconds(model).observe(seconds)

    def answered_by_replica(self, reply: Reply, model: str) -> None:
        """Count what a replica tells about itself beside its outputs."""
        self.compute_of(model).observe(reply.seconds)
        if reply.load_seconds is not None:
            self.model_load.labels(self.model(model)).observe(reply.load_seconds)
        if reply.first:
            self.process_starts.labels("replica").inc()
        if reply.cpu_seconds:
            self.process_cpu.labels("replica").inc(reply.cpu_seconds)

    def measure_process(self) -> None:
        """Count the processor time that this process spent since it was last asked."""
        used = usage(os.getpid())
        spent = used.cpu_seconds if used else time.process_time()
        self.process_cpu.labels("gateway").inc(max(0.0, spent - self._cpu_seconds))
        self._cpu_seconds = max(self._cpu_seconds, spent)

    @property
    def requests_in_flight(self) -> int:
        """Requests that this gateway is answering."""
        return int(next(iter(self.in_flight.collect())).samples[0].value)


class Few:
    """Values of a label of which users can make ever more: the first 256 keep their name.

    Args:
        beyond: the label of every further one.
    """

    def __init__(self, beyond: Callable[[str], str]) -> None:
        self._beyond = beyond
        self._known: set[str] = set()

    def __call__(self, name: str) -> str:
        """The label for ``name``."""
        if name not in self._known:
            if len(self._known) >= MOST_LABELS:
                return self._beyond(name)
            self._known.add(name)
        return name


class VolumeCollector(Collector):
    """Room on the disks that hold state; empty for a store that is not a folder."""

    def __init__(self) -> None:
        self.folders: dict[str, Path] = {}

    def collect(self) -> Iterator[Metric]:
        """Yield free bytes and size of each volume."""
        free = GaugeMetricFamily("deepnight_volume_free_bytes", "Bytes that can still be written", labels=["volume"])
        size = GaugeMetricFamily("deepnight_volume_size_bytes", "Bytes of the file system", labels=["volume"])
        for name, folder in self.folders.items():
            with suppress(OSError):
                disk = shutil.disk_usage(folder)
                free.add_metric([name], disk.free)
                size.add_metric([name], disk.total)
        yield from (free, size)


class ReplicaCollector(Collector):
    """Replicas as Serve's controller sees them."""

    def __init__(self) -> None:
        self.latest: Mapping[str, Mapping[str, int]] = {}
        self.looked_at = float("-inf")

    def collect(self) -> Iterator[Metric]:
        """Yield the number of replicas of each deployment by state."""
        replicas = GaugeMetricFamily("deepnight_replicas", "Replicas by state", labels=["deployment", "state"])
        for deployment, states in self.latest.items():
            for state, count in states.items():
                replicas.add_metric([deployment, state.lower()], count)
        yield replicas


class QueueCollector(Collector):
    """Metrics of jobs and workers, from the latest look at the queue."""

    def __init__(self) -> None:
        self.latest: QueueStats | None = None
        self.looked_at = 0.0

    def keep(self, stats: QueueStats) -> None:
        """Remember ``stats`` as the latest look."""
        self.latest, self.looked_at = stats, time.monotonic()

    def lose(self) -> None:
        """Forget the latest look: Redis is away, and nobody knows."""
        self.latest = None

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
        kinds = sorted({kind for kind, _ in stats.jobs} | stats.wait.keys())  # at zero from a kind's first job on
        for kind in kinds:
            histogram = stats.wait.get(kind, empty(WAIT_BOUNDS))
            wait.add_metric([kind], histogram.buckets, histogram.sum)
        yield wait
        duration = HistogramMetricFamily(
            "deepnight_job_duration_seconds", "Time from start to final status", labels=["kind", "status"]
        )
        for kind, status in itertools.product(kinds, FINAL):
            histogram = stats.duration.get((kind, status), empty(DURATION_BOUNDS))
            duration.add_metric([kind, status], histogram.buckets, histogram.sum)
        yield duration
        lost = CounterMetricFamily("deepnight_job_lost_runs", "Runs of jobs whose process died", labels=["kind"])
        for kind in kinds:
            lost.add_metric([kind], stats.lost_runs.get(kind, 0))
        yield lost
        used, limit = stats.memory
        yield GaugeMetricFamily("deepnight_redis_memory_bytes", "Memory that Redis uses", value=used)
        yield GaugeMetricFamily("deepnight_redis_memory_limit_bytes", "Memory that Redis may use, 0: all", value=limit)
