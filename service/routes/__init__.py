"""Routes, one file a resource."""

from service.routes import classifications, datasets, distances, embeddings, health, jobs, models, v2

ROUTERS = tuple(
    module.router for module in (embeddings, classifications, distances, datasets, jobs, models, v2, health)
)
