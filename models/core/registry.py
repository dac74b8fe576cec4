"""Discovery: a folder with a ``card.toml`` is a method. Nothing else registers anything.

A method's folder holds ``card.toml``, ``schema.py`` (pydantic models ``Params`` and ``Config``, and those of its
job kinds; never imports torch), ``method.py`` (the one :class:`~models.core.method.Method`), and ``weights/`` (the
shipped checkpoint, and in a folder named by its version each further one). The gateway reads cards and schemas only;
``MethodEntry.method`` is what imports torch.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from models.core.card import Card, JobKind
from models.core.checkpoint import CONFIG, Checkpoint, CheckpointError

if TYPE_CHECKING:
    from models.core.method import Method

SHIPPED = Path(__file__).resolve().parent.parent


class UnknownMethodError(KeyError):
    """No method of that slug is installed."""


@dataclass(frozen=True)
class MethodEntry:
    """One discovered method folder; everything beyond the card is imported when first asked for."""

    folder: Path
    package: str
    card: Card

    @property
    def slug(self) -> str:
        """The method's id in requests."""
        return self.card.slug

    @cached_property
    def schema(self) -> ModuleType:
        """The module ``schema.py``."""
        return self.module("schema")

    @cached_property
    def params(self) -> type[BaseModel]:
        """Type of the per-request ``parameters``."""
        return self.model("Params")

    @cached_property
    def default_params(self) -> BaseModel:
        """The parameters of a request that sends none."""
        return self.params()

    @cached_property
    def config(self) -> type[BaseModel]:
        """Type of the training configuration."""
        return self.model("Config")

    @cached_property
    def presets(self) -> Mapping[str, BaseModel]:
        """Named configurations from ``schema.PRESETS`` (``cpu`` and ``paper`` where trainable)."""
        return dict(getattr(self.schema, "PRESETS", {}))

    @cached_property
    def method(self) -> type[Method[Any, Any]]:
        """The method class; importing it imports torch.

        Raises:
            TypeError: ``method.py`` does not define exactly one Method.
        """
        from models.core.method import Method

        module = self.module("method")
        found = [
            value
            for value in vars(module).values()
            if isinstance(value, type) and issubclass(value, Method) and value.__module__ == module.__name__
        ]
        if len(found) != 1:
            raise TypeError(f"{self.folder / 'method.py'} defines {len(found)} methods, expected one")
        found[0].card = self.card
        return found[0]

    def checkpoint(self, folder: Path) -> Checkpoint:
        """Open a checkpoint of this method; what its ``load`` and ``evaluate`` are given comes from here.

        Raises:
            CheckpointError: there is none in ``folder``, or it is of another method.
        """
        found = Checkpoint(folder)
        if found.config.method != self.slug:
            raise CheckpointError(f"{folder.name} is a checkpoint of {found.config.method}, not of {self.slug}")
        return found

    def shipped(self) -> Checkpoint | None:
        """The checkpoint in the method's folder, the default where it ships several."""
        weights = self.folder / "weights"
        return self.checkpoint(weights) if (weights / CONFIG).exists() else None

    def all_shipped(self) -> dict[str, Checkpoint]:
        """Every checkpoint in the method's folder by version, the default one first.

        Raises:
            CheckpointError: one is damaged, of another method, or not of the version that its folder is named by.
        """
        default = self.shipped()
        found = {} if default is None else {default.config.version: default}
        for config in sorted(self.folder.glob(f"weights/*/{CONFIG}")):
            checkpoint = self.checkpoint(config.parent)
            if (name := checkpoint.config.version) != config.parent.name or name in found:
                raise CheckpointError(f"{self.slug}: weights/{config.parent.name} holds a checkpoint of version {name}")
            found[name] = checkpoint
        return found

    def model(self, name: str) -> type[BaseModel]:
        """The pydantic model ``name`` of ``schema.py``.

        Raises:
            TypeError: there is none.
        """
        found = getattr(self.schema, name, None)
        if not (isinstance(found, type) and issubclass(found, BaseModel)):
            raise TypeError(f"{self.folder / 'schema.py'} defines no pydantic model {name}")
        return found

    def module(self, name: str) -> ModuleType:
        """Import ``name`` from the method's folder."""
        return importlib.import_module(f"{self.package}.{name}")

    def job_function(self, kind: JobKind) -> Any:
        """The function that runs jobs of ``kind``; importing it imports torch."""
        module, _, function = kind.run.partition(":")
        return getattr(self.module(module), function)


class Registry(Mapping[str, MethodEntry]):
    """All methods found in ``roots``, by slug, in alphabetical order.

    Raises:
        ValueError: a card is not valid, or two folders claim one slug or one job kind.
    """

    def __init__(self, *roots: Path) -> None:
        entries: dict[str, MethodEntry] = {}
        kinds = dict.fromkeys(("train", "evaluate", "predict"), "every method")
        for root in (SHIPPED, *roots):
            for path in sorted(root.glob("*/card.toml")):
                entry = MethodEntry(path.parent, _package(path.parent), Card.read(path))
                if entry.slug in entries:
                    raise ValueError(f"{path}: the slug {entry.slug} is taken by {entries[entry.slug].folder}")
                for job in entry.card.jobs:
                    if job.kind in kinds:
                        raise ValueError(f"{path}: job kind {job.kind} is offered by {kinds[job.kind]}")
                    kinds[job.kind] = entry.slug
                entries[entry.slug] = entry
        self._entries = dict(sorted(entries.items()))

    def __getitem__(self, slug: str) -> MethodEntry:
        try:
            return self._entries[slug]
        except KeyError:
            raise UnknownMethodError(slug) from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def job_kinds(self) -> dict[str, tuple[MethodEntry, JobKind]]:
        """The job kinds that methods declare (``train`` and ``evaluate`` are every method's)."""
        return {job.kind: (entry, job) for entry in self.values() for job in entry.card.jobs}


def _package(folder: Path) -> str:
    """Import name of a method's folder; a folder outside this package is made importable under its own name."""
    if folder.parent == SHIPPED:
        return f"models.{folder.name}"
    name = f"deepnight_methods_{folder.name}"
    if name not in sys.modules:
        module = ModuleType(name)
        module.__path__ = [str(folder)]
        sys.modules[name] = module
    return name


def parse_model_id(model: str) -> tuple[str, str | None]:
    """Split ``slug`` or ``slug@version``."""
    slug, _, version = model.partition("@")
    return slug, version or None
