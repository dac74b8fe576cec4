"""What a route needs from outside, in one place, so that the same application runs on any backend."""

from __future__ import annotations

from dataclasses import dataclass

from fastapi import Request

from models.core.datasets import DatasetStore
from models.core.registry import Registry
from models.core.store import BlobStore
from models.core.versions import Versions
from service.catalog import Catalog
from service.inference import Inference
from service.keys import KeyStore
from service.metrics import Metrics
from service.settings import Settings
from service.storelook import StoreLook
from workers.client import JobsClient


@dataclass(frozen=True)
class Services:
    """The gateway's collaborators."""

    settings: Settings
    registry: Registry
    versions: Versions
    catalog: Catalog
    store: BlobStore
    store_look: StoreLook
    datasets: DatasetStore
    jobs: JobsClient
    inference: Inference
    keys: KeyStore
    metrics: Metrics


async def get_services(request: Request) -> Services:
    """FastAPI dependency: the application's services. Async, as FastAPI sends plain functions to a thread."""
    services: Services = request.app.state.services
    return services


def make_services(settings: Settings, metrics: Metrics) -> Services:
    """The services that ``settings`` describe; nothing is contacted yet."""
    registry = Registry(*settings.method_roots)
    store = BlobStore(settings.store)
    cache = settings.home.resolve() / "cache"
    versions = Versions(registry, store, cache / "versions")
    metrics.volumes.folders = {"home": settings.home.resolve()}
    blobs = store.local_path("any")
    if blobs is not None:
        metrics.volumes.folders |= {"store": blobs.parent}
    return Services(
        settings=settings,
        registry=registry,
        versions=versions,
        catalog=Catalog(versions),
        store=store,
        store_look=StoreLook(store),
        datasets=DatasetStore(store, cache, settings.dataset_limits),
        jobs=JobsClient(settings.redis_url or "redis://127.0.0.1:6379/0", settings),
        inference=Inference(settings, versions, metrics),
        keys=KeyStore(store),
        metrics=metrics,
    )
