"""What a job's function is given in a worker: progress, logs, resumable state and artifacts, all fenced."""

from __future__ import annotations

import logging
import math
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt

from models.core.checkpoint import Checkpoint
from models.core.dataset import Dataset
from models.core.datasets import DatasetStore
from models.core.feedback import Comparison, FeedbackStore
from models.core.jobs import JobContext
from models.core.registry import Registry
from models.core.run import State, read_state, write_state
from models.core.store import BlobStore
from models.core.versions import Versions
from service.keys import KeyStore
from service.settings import Settings
from workers.outbox import Outbox
from workers.records import Artifact, JobRecord
from workers.uploads import upload

log = logging.getLogger("deepnight.job")

_STATE = re.compile(r"state-(\d+)\.npz$")
_ARTIFACT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class WorkerContext(JobContext):
    """A job's surroundings in its process.

    Args:
        record: the job, as it is at the start of this attempt.
        scratch: an empty folder.
        outbox: sends what is reported; leaves the process when another attempt owns the job.

    Attributes:
        curves: every point of every metric, those of earlier attempts up to the resume point included.
    """

    def __init__(
        self,
        record: JobRecord,
        settings: Settings,
        registry: Registry,
        store: BlobStore,
        outbox: Outbox,
        *,
        device: str,
        scratch: Path,
    ) -> None:
        super().__init__(seed=record.seed or 0, device=device, scratch=scratch / "work")
        self.scratch.mkdir()
        self.job_id = record.id
        self.owner = record.owner
        self.dataset_id = record.dataset
        self.model = record.model
        self.registry = registry
        self.settings = settings
        cache = settings.home.resolve() / "cache"
        self.versions = Versions(registry, store, cache / "versions")
        self.curves: dict[str, list[tuple[int, float | None]]] = {}
        self._datasets = DatasetStore(store, cache, settings.dataset_limits)
        self._store = store
        self._outbox = outbox
        self._state_key = record.state_key
        self._states = 0
        self._prefix = f"jobs/{record.id}/{record.attempt}"
        self._folder = scratch
        self._artifacts: dict[str, str] = {}
        self._first: tuple[float, float] | None = None

    def progress(self, fraction: float, stage: str, message: str = "") -> None:
        """Report progress; sent at most four times a second, with the time that is left at this attempt's pace."""
        now, fraction = time.monotonic(), min(1.0, max(0.0, float(fraction)))
        if self._first is None:
            self._first = (now, fraction)
        done = fraction - self._first[1]
        eta = (now - self._first[0]) * (1.0 - fraction) / done if done > 0 else None
        self._outbox.progress(
            {
                "fraction": fraction,
                "stage": stage,
                "message": message,
                "eta_seconds": None if eta is None else round(eta, 1),
            }
        )
        self._outbox.check()

    def metric(self, name: str, value: float, step: int) -> None:
        """Report one point of a curve; what is not finite is reported as null."""
        point = float(value) if math.isfinite(value) else None
        self.curves.setdefault(name, []).append((int(step), point))
        self._outbox.event("metric", {"name": name, "value": point, "step": int(step)})

    def log(self, message: str) -> None:
        """One line for the owner; the last hundred are in the record, all in the job's log."""
        log.info("%s: %s", self.job_id, message)
        with (self._folder / "log.txt").open("a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {message}\n")
        self._outbox.event("log", {"message": message})

    def flush(self) -> None:
        """Send what was reported.

        Raises:
            Cancelled: the user asked for the run to stop.
        """
        self._outbox.flush()
        self._outbox.check()

    def save_state(self, tensors: Mapping[str, npt.NDArray[Any]], meta: Mapping[str, Any]) -> None:
        """Store the resume point, and only then point the record to it."""
        path = self._folder / "state.npz"
        write_state(path, tensors, {"meta": dict(meta), "curves": self.curves})
        self._states += 1
        key, old = f"{self._prefix}/state-{self._states}.npz", self._state_key
        self._store.put_file(key, path)
        self._outbox.set({"state_key": key})
        self._outbox.flush()
        self._state_key = key
        if old:
            self._store.delete(old)
        self._outbox.check()

    def load_state(self) -> State | None:
        """The resume point that the latest attempt left, also where a Redis that failed over forgot its name."""
        self._state_key = self._newest_state()
        if not self._state_key:
            return None
        path = self._folder / "resume.npz"
        self._store.get_file(self._state_key, path)
        tensors, facts = read_state(path)
        path.unlink()
        self.curves = {name: [(step, value) for step, value in points] for name, points in facts["curves"].items()}
        return tensors, facts["meta"]

    def _newest_state(self) -> str:
        """The key in the record, or that of the file that took its place; empty where there is none."""
        if not self._state_key or self._store.exists(self._state_key):
            return self._state_key
        folder = self._state_key.rpartition("/")[0]
        numbers = {int(found[1]): found[0] for found in map(_STATE.search, self._store.keys(folder)) if found}
        return f"{folder}/{numbers[max(numbers)]}" if numbers else ""

    def artifact(self, name: str, media_type: str) -> Path:
        """A path to write the artifact ``name`` to; it is stored when the run succeeds.

        Raises:
            ValueError: not a plain file name.
        """
        if not _ARTIFACT.fullmatch(name):
            raise ValueError(f"{name!r} is not an artifact's name: letters, digits, dot, dash and underscore")
        self._artifacts[name] = media_type
        folder = self._folder / "artifacts"
        folder.mkdir(exist_ok=True)
        return folder / name

    def dataset(self, dataset_id: str) -> Dataset:
        """Load a data set of the owner."""
        return self._datasets.load(self.owner, dataset_id)

    def dataset_file(self, dataset_id: str) -> tuple[Path, str]:
        """The uploaded file and its format."""
        return self._datasets.file(self.owner, dataset_id)

    def register_dataset(self, path: Path, name: str) -> str:
        """Store a file as a data set of the owner, read with the options of the job's own where it has one."""
        options = None if self.dataset_id is None else self._datasets.get(self.owner, self.dataset_id).options
        record, _ = self._datasets.add(self.owner, path, filename=path.name, name=name, options=options)
        return record.id

    def comparisons(self) -> list[Comparison]:
        """The owner's comparisons; everybody's for an administrator's job."""
        everybody = KeyStore(self._store).administers(self.owner)
        return FeedbackStore(self._store).list(None if everybody else self.owner)

    def check_free(self, slug: str, name: str | None = None) -> None:
        """Check that the name is free, or this job's own from an earlier attempt."""
        self.versions.check_free(slug, name or self.version_name, job=self.job_id)

    def publish(self, slug: str, checkpoint: Checkpoint, name: str | None = None) -> str:
        """Serve a checkpoint as a version of the owner's."""
        self.flush()
        chosen = name or self.version_name
        return self.versions.publish(slug, chosen, checkpoint.folder, owner=self.owner, job=self.job_id).id

    @property
    def version_name(self) -> str:
        """What a version of this job is called where nobody named it."""
        return self.job_id.removeprefix("job_")[:12]

    def checkpoint(self, model: str) -> Checkpoint:
        """Open the checkpoint of a model."""
        return self.versions.checkpoint(self.versions.resolve(model))

    def store_artifacts(self) -> list[Artifact]:
        """Upload the artifacts that were written."""
        stored = []
        for name, media_type in self._artifacts.items():
            path = self._folder / "artifacts" / name
            if path.exists():
                stored.append(upload(self._store, f"{self._prefix}/artifacts/{name}", path, media_type))
            else:
                self.log(f"the artifact {name} was announced and not written")
        return stored

    def store_blob(self, name: str, data: bytes) -> str:
        """Store bytes of this attempt; their key."""
        key = f"{self._prefix}/{name}"
        self._store.put(key, data)
        return key

    def read_blob(self, key: str) -> bytes:
        """Read bytes of the job."""
        return self._store.get(key)

    def store_log(self) -> str | None:
        """Upload the whole log; its key, or None when nothing was logged."""
        path = self._folder / "log.txt"
        if not path.exists():
            return None
        self._store.put_file(f"{self._prefix}/log.txt", path)
        return f"{self._prefix}/log.txt"

    def drop_state(self) -> None:
        """Delete the resume point of a job that has ended."""
        if self._state_key:
            self._store.delete(self._state_key)
