"""Models: their versions, and which one is the default."""

from __future__ import annotations

from deepnight.client.answers import Model, known
from deepnight.client.calls import Call, Flow
from deepnight.client.flows.paging import id_of, listed


def models() -> Flow[list[Model]]:
    """Every version that you may use."""
    return [known(Model, row) for row in (yield from listed("/v1/models"))]


def model(model_id: str) -> Flow[Model]:
    """One version: ``slug@version``, or the default one of a slug."""
    response = yield Call("GET", f"/v1/models/{model_id}")
    return known(Model, response.json())


def set_default(model: str | Model) -> Flow[Model]:
    """Make ``slug@version`` what the bare slug means."""
    slug, _, version = id_of(model).partition("@")
    response = yield Call("PUT", f"/v1/models/{slug}/default", json={"version": version})
    return known(Model, response.json())


def delete_model(model: str | Model) -> Flow[None]:
    """Delete a trained version."""
    yield Call("DELETE", f"/v1/models/{id_of(model)}")
