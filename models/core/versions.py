"""Versions of methods: shipped checkpoints, and those that users trained, in the blob store.

``versions/{slug}/{version}/`` holds a checkpoint and ``version.json``, written last: a version is there when that
file is. ``versions/{slug}/default.json`` names the default. All state is in the store, so gateways and replicas
agree without talking to each other.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel

from models.core.checkpoint import CONFIG, FIGURES, WEIGHTS, Checkpoint
from models.core.registry import MethodEntry, Registry, parse_model_id
from models.core.store import BlobStore

VERSION_PATTERN = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")


class UnknownVersionError(KeyError):
    """The method has no such version."""


class VersionExistsError(ValueError):
    """The version's name is taken."""


class VersionRecord(BaseModel):
    """What ``version.json`` holds."""

    owner: str = ""
    created_at: float = 0.0
    job: str | None = None


@dataclass(frozen=True)
class Version:
    """One version that can be served."""

    entry: MethodEntry
    name: str
    shipped: bool
    record: VersionRecord

    @property
    def id(self) -> str:
        """``slug@version``."""
        return f"{self.entry.slug}@{self.name}"


class Versions:
    """The versions of every method of ``registry``.

    Args:
        cache: folder for checkpoints fetched from a store that is not local.
    """

    def __init__(self, registry: Registry, store: BlobStore, cache: Path) -> None:
        self.registry = registry
        self._store = store
        self._cache = cache

    def list(self, slug: str) -> list[Version]:
        """All versions of ``slug``, the shipped ones first, then by creation time."""
        entry = self.registry[slug]
        found = [_shipped(entry, name) for name in entry.all_shipped()]
        trained = [self._trained(entry, name) for name in self._store.folders(f"versions/{slug}")]
        return found + sorted((v for v in trained if v is not None), key=lambda v: v.record.created_at)

    def resolve(self, model: str) -> Version:
        """The version that ``slug`` or ``slug@version`` means.

        Raises:
            UnknownMethodError: no such method.
            UnknownVersionError: no such version.
        """
        slug, name = parse_model_id(model)
        entry = self.registry[slug]
        name = name or self.default(slug)
        found = self._find(entry, name) if VERSION_PATTERN.match(name) else None
        if found is None:
            raise UnknownVersionError(f"{slug}@{name}")
        return found

    def checkpoint(self, version: Version) -> Checkpoint:
        """Open the checkpoint of ``version``, fetching it first where the store is not local.

        Raises:
            CheckpointError: it is damaged or of another method.
        """
        if version.shipped:
            return version.entry.all_shipped()[version.name]
        prefix = self._prefix(version.entry.slug, version.name)
        local = self._store.local_path(prefix)
        if local is None:
            local = self._cache / str(version.record.created_at) / prefix  # a deleted name can be given again
            for name in (WEIGHTS, FIGURES, CONFIG):
                if not (local / name).exists() and self._store.exists(f"{prefix}/{name}"):
                    self._store.get_file(f"{prefix}/{name}", local / name)
        return version.entry.checkpoint(local)

    def default(self, slug: str) -> str:
        """The version name that the bare slug means.

        Raises:
            UnknownVersionError: the method ships none and none is set.
        """
        key = f"versions/{slug}/default.json"
        if self._store.exists(key):
            name = _Default.model_validate_json(self._store.get(key)).version
            if self._find(self.registry[slug], name) is not None:
                return name
        shipped = self.registry[slug].shipped()
        if shipped is None:
            raise UnknownVersionError(slug)
        return shipped.config.version

    def set_default(self, version: Version) -> None:
        """Make ``version`` what its bare slug means."""
        text = _Default(version=version.name).model_dump_json()
        self._store.put(f"versions/{version.entry.slug}/default.json", text.encode())

    def check_free(self, slug: str, name: str, *, job: str | None = None) -> None:
        """Check that :meth:`publish` would take the name, before hours of work on what is to be published.

        Raises:
            VersionExistsError: the name is taken, and not by ``job``.
            ValueError: not a version name.
        """
        entry = self.registry[slug]
        if not VERSION_PATTERN.match(name):
            raise ValueError(f"{name!r} is not a version name: letters, digits, dot, dash and underscore")
        if name in entry.all_shipped():
            raise VersionExistsError(f"{slug}@{name} is a shipped version")
        trained = self._trained(entry, name)
        if trained is not None and (job is None or trained.record.job != job):
            raise VersionExistsError(f"{slug}@{name} is there already")

    def publish(self, slug: str, name: str, folder: Path, *, owner: str, job: str | None = None) -> Version:
        """Copy a checkpoint folder into the store as ``slug@name``; it is served from then on.

        Publishing again by the same job is a repetition after a crash and replaces what it wrote.

        Raises:
            VersionExistsError: the name is taken.
            CheckpointError: the folder holds no checkpoint, or one of another method.
            ValueError: not a version name.
        """
        self.check_free(slug, name, job=job)
        entry = self.registry[slug]
        entry.checkpoint(folder)
        prefix = self._prefix(slug, name)
        for file in (WEIGHTS, CONFIG, FIGURES):
            if (folder / file).exists():
                self._store.put_file(f"{prefix}/{file}", folder / file)
        record = VersionRecord(owner=owner, created_at=time.time(), job=job)
        self._store.put(f"{prefix}/version.json", record.model_dump_json().encode())
        return Version(entry, name, shipped=False, record=record)

    def delete(self, version: Version) -> None:
        """Remove a trained version; the default falls back to the shipped one.

        Raises:
            ValueError: the version is shipped.
        """
        if version.shipped:
            raise ValueError("a shipped version cannot be deleted")
        prefix = self._prefix(version.entry.slug, version.name)
        self._store.delete(f"{prefix}/version.json")
        self._store.delete(prefix)

    def _find(self, entry: MethodEntry, name: str) -> Version | None:
        return _shipped(entry, name) if name in entry.all_shipped() else self._trained(entry, name)

    def _trained(self, entry: MethodEntry, name: str) -> Version | None:
        key = f"{self._prefix(entry.slug, name)}/version.json"
        if not self._store.exists(key):
            return None
        record = VersionRecord.model_validate_json(self._store.get(key))
        return Version(entry, name, shipped=False, record=record)

    @staticmethod
    def _prefix(slug: str, name: str) -> str:
        return f"versions/{slug}/{name}"


def _shipped(entry: MethodEntry, name: str) -> Version:
    return Version(entry, name, shipped=True, record=VersionRecord())


class _Default(BaseModel):
    version: str
