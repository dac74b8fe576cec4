"""Routes, one file a resource."""

from service.routes import (
    classifications,
    datasets,
    distances,
    embeddings,
    health,
    images,
    jobs,
    models,
    summaries,
    v2,
)

ROUTERS = tuple(
    module.router
    for module in (embeddings, classifications, distances, images, summaries, datasets, jobs, models, v2, health)
)
