"""A job on this machine: the real data set store in a folder, artifacts and resume point beside it."""

from pathlib import Path

from models.core.checkpoint import Checkpoint
from models.core.dataset import Dataset
from models.core.datasets.options import DatasetOptions
from models.core.datasets.store import DatasetStore
from models.core.jobs import JobContext
from models.core.registry import Registry
from models.core.run import LocalRun
from models.core.store import BlobStore

OWNER = "tester"


class LocalJob(LocalRun, JobContext):
    job_id = "job_local"
    owner = OWNER

    def __init__(self, folder: Path, store: Path | None = None, *, upload: Path | None = None, **reports):
        super().__init__(folder, **reports)
        store = store or folder / "store"
        self.store = DatasetStore(BlobStore(str(store)), store / "cache")
        self.registry = Registry()
        if upload is not None:
            self.dataset_id = self.register_dataset(upload, "upload")

    def dataset(self, dataset_id: str) -> Dataset:
        return self.store.load(OWNER, dataset_id)

    def dataset_file(self, dataset_id: str) -> tuple[Path, str]:
        return self.store.file(OWNER, dataset_id)

    def register_dataset(self, path: Path, name: str) -> str:
        record, _ = self.store.add(OWNER, path, filename=path.name, name=name, options=DatasetOptions())
        return record.id

    def checkpoint(self, model: str) -> Checkpoint:
        checkpoint = self.registry[model].shipped()
        assert checkpoint is not None
        return checkpoint
