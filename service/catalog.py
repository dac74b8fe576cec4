"""Which versions there are and what they take, read from the store at most once a second."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from models.core.checkpoint import Checkpoint, CheckpointConfig, CheckpointError
from models.core.registry import UnknownMethodError
from models.core.store import StoreUnavailableError
from models.core.versions import UnknownVersionError, Version, Versions
from service.auth import Caller
from service.problems import FieldError, Problem

FRESH_S = 1.0


@dataclass(frozen=True)
class Served:
    """A version with its checkpoint's config."""

    version: Version
    config: CheckpointConfig

    @property
    def id(self) -> str:
        """``slug@version``."""
        return self.version.id


class Catalog:
    """Resolves model ids; a version made by a job is found within a second of its publication. While the store is
    away, what was known last is served on.
    """

    def __init__(self, versions: Versions) -> None:
        self._versions = versions
        self._known: dict[str, tuple[float, Served]] = {}

    async def resolve(self, model: str, caller: Caller, field: str = "/model") -> Served:
        """The version that ``model`` means for ``caller``.

        Raises:
            Problem: 404 where there is none, or where it belongs to another key.
            StoreUnavailableError: nobody asked for it before the store went away.
        """
        fresh, known = self._known.get(model, (0.0, None))
        if known is None or time.monotonic() - fresh > FRESH_S:
            try:
                known = await asyncio.to_thread(self._read, model)
            except (UnknownMethodError, UnknownVersionError):
                self._known.pop(model, None)
                raise unknown_model(model, field) from None
            except StoreUnavailableError:
                if known is None:
                    raise
            except CheckpointError as error:
                raise Problem(503, f"the model `{model}` is damaged: {error}", code="model_failed") from error
            self._known[model] = (time.monotonic(), known)
        if not visible(known.version, caller):
            raise unknown_model(model, field)
        return known

    def forget(self) -> None:
        """Read everything anew at the next look."""
        self._known.clear()

    def checkpoint(self, served: Served) -> Checkpoint:
        """The checkpoint of ``served``; reads files, so call it in a thread."""
        return self._versions.checkpoint(served.version)

    def _read(self, model: str) -> Served:
        version = self._versions.resolve(model)
        return Served(version, self._versions.checkpoint(version).config)


def visible(version: Version, caller: Caller) -> bool:
    """Shipped versions are everybody's, trained ones their owner's."""
    return version.shipped or caller.admin or version.record.owner == caller.owner


def unknown_model(model: str, field: str) -> Problem:
    """404 for a model that is not there, or not the caller's."""
    return Problem(
        404,
        f"there is no model `{model[:200]}`",
        errors=[FieldError(field, "not a model; GET /v1/models lists them")],
        code="model_not_found",
    )
