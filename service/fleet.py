"""The metrics of every process, as a scrape of this gateway shows them: its own, and what the others have shared."""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from workers.client import JobsClient, QueueUnavailableError
from workers.sharing import EVERY_S, Growth, Shared, parse_series, series, usage

if TYPE_CHECKING:
    from service.services import Services

MODEL_STATES = ("cold", "failed", "loading", "ready")  # of several gateways' views the last one here is shown
SHARED_TYPES = frozenset({"counter", "histogram"})


class Fleet(Collector):
    """Adds up what grows in every process, and the gauges of the living ones.

    Without Redis it shows this gateway alone, and of the others the last that is known of what only grows.

    Args:
        own: this gateway's metrics.
    """

    def __init__(self, own: CollectorRegistry) -> None:
        self._own = own
        self._growth = Growth()
        self._sharing = asyncio.Lock()
        self._state: dict[str, Any] = {"role": "gateway", "resident_bytes": 0}
        self._known = (Shared(), dict[str, float]())

    async def exchange(self, jobs: JobsClient, gauges: Mapping[str, Any]) -> None:
        """Share this gateway's growth and ``gauges``, and learn everybody's.

        Raises:
            QueueUnavailableError: Redis is away; what has grown is sent next time.
        """
        async with self._sharing:
            try:
                shared = await jobs.exchange(await self._message(gauges))
            except QueueUnavailableError:  # who else lives is not known
                self._known = (Shared(self._known[0].totals), self._known[1])
                raise
            self._growth.arrived()
            self._known = (shared, dict(self._growth.sent))

    async def share(self, jobs: JobsClient, gauges: Mapping[str, Any]) -> None:
        """Share this gateway's growth and ``gauges``, for others' scrapes and this process's successor.

        Raises:
            QueueUnavailableError: Redis is away; what has grown is sent next time.
        """
        async with self._sharing:
            await jobs.share(await self._message(gauges))
            totals = dict(self._known[0].totals)
            for name, growth in self._growth.arrived().items():
                totals[name] = totals.get(name, 0.0) + growth
            self._known = (Shared(totals, self._known[0].processes), dict(self._growth.sent))

    async def _message(self, gauges: Mapping[str, Any]) -> list[Any]:
        used = usage(os.getpid())
        self._state = {"role": "gateway", "resident_bytes": used.resident_bytes if used else 0, **gauges}
        numbers = await asyncio.to_thread(self._numbers)  # thousands: requests are not to wait for them
        return self._growth.message(numbers, self._state)

    async def leave(self, jobs: JobsClient) -> None:
        """Share the last growth of a gateway that ends."""
        with suppress(QueueUnavailableError):
            await self.share(jobs, {})
            await jobs.leave(self._growth.process)

    def collect(self) -> Iterator[Metric]:
        """Yield every family."""
        shared, sent = self._known
        totals = dict(shared.totals)
        for name, value in self._numbers().items():
            totals[name] = totals.get(name, 0.0) + value - sent.get(name, 0.0)
        by_name: dict[str, list[tuple[Mapping[str, str], float]]] = defaultdict(list)
        for text, value in totals.items():
            name, labels = parse_series(text)
            by_name[name].append((labels, value))
        for family in self._own.collect():
            if family.type not in SHARED_TYPES:
                yield family
                continue
            merged = Metric(family.name, family.documentation, family.type)
            suffixes = ("_total",) if family.type == "counter" else ("_bucket", "_count", "_sum")
            for name in (family.name + suffix for suffix in suffixes):
                for labels, value in sorted(by_name[name], key=_in_order):
                    merged.add_sample(name, dict(labels), value)
            yield merged
        yield from self._gauges(shared)

    def _numbers(self) -> dict[str, float]:
        """This gateway's own counters and parts of histograms, by series."""
        return {
            series(sample.name, sample.labels): sample.value
            for family in self._own.collect()
            if family.type in SHARED_TYPES
            for sample in family.samples
            if not sample.name.endswith("_created")
        }

    def _gauges(self, shared: Shared) -> Iterator[Metric]:
        processes = list({**shared.processes, self._growth.process: self._state}.values())
        living = GaugeMetricFamily("deepnight_processes", "Processes with a sign of life", labels=["role"])
        resident = GaugeMetricFamily(
            "deepnight_process_resident_memory_bytes", "Memory of all processes of a role", labels=["role"]
        )
        for role in ("gateway", "worker", "job"):
            of_role = [process for process in processes if process["role"] == role]
            living.add_metric([role], len(of_role))
            resident.add_metric([role], sum(process["resident_bytes"] for process in of_role))
        yield from (living, resident)
        in_flight = GaugeMetricFamily("deepnight_http_requests_in_flight", "HTTP requests being answered")
        in_flight.add_metric([], sum(process.get("in_flight", 0) for process in processes))
        yield in_flight
        waiting = GaugeMetricFamily("deepnight_inference_waiting", "Inputs that wait for a replica", labels=["model"])
        for model, count in _summed(process.get("waiting", {}) for process in processes).items():
            waiting.add_metric([model], count)
        yield waiting
        states = GaugeMetricFamily(
            "deepnight_model_state", "1 for the state that a model is in", labels=["model", "state"]
        )
        for model, current in _best(process.get("models", {}) for process in processes).items():
            for state in MODEL_STATES:
                states.add_metric([model, state], state == current)
        yield states


def _in_order(sample: tuple[Mapping[str, str], float]) -> tuple[str, float]:
    """Samples by labels; buckets from the smallest to infinity."""
    labels = dict(sample[0])
    bound = float(labels.pop("le", "0"))
    return json.dumps(labels, sort_keys=True), bound


def _summed(counts: Iterable[Mapping[str, int]]) -> Counter[str]:
    total = Counter[str]()
    for some in counts:
        total.update(some)
    return total


def _best(views: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """The state of each model, where gateways may know different ones: each knows only what it called."""
    states: dict[str, str] = {}
    for view in views:
        for model, state in view.items():
            states[model] = max(states.get(model, state), state, key=MODEL_STATES.index)
    return states


def gauges(services: Services) -> dict[str, Any]:
    """What this gateway tells of itself beside what grows."""
    metrics, inference = services.metrics, services.inference
    metrics.measure_process()
    return {
        "in_flight": metrics.requests_in_flight,
        "waiting": {metrics.model(model): count for model, count in inference.waiting().items()},
        "models": {metrics.model(model): state for model, state in inference.states().items()},
    }


async def keep_sharing(services: Services) -> None:
    """Share this gateway's metrics until cancelled."""
    while True:
        with suppress(QueueUnavailableError):
            await services.metrics.fleet.share(services.jobs, gauges(services))
        await asyncio.sleep(EVERY_S)
