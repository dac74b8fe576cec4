from pathlib import Path

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_limits

from models.align_uniform.schema import Config
from models.core.dataset import Dataset
from models.core.jobs import JobContext
from models.core.registry import Registry
from models.core.run import Cancelled, LocalRun

SLICE = Path(__file__).parents[2] / "data" / "fashion-mnist-600.npz"


class Interrupted(LocalRun):
    """Cancels itself after some progress reports of the training."""

    left = 4

    def progress(self, fraction, stage, message=""):
        if stage == "train":
            self.left -= 1
            if self.left == 0:
                raise Cancelled


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with threadpool_limits(1):
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def fashion():
    with np.load(SLICE) as archive:
        images, labels = archive["images"], archive["labels"].astype(np.int64)
    return Dataset("images", images.reshape(-1, 28, 28, 1), labels, [f"class {i}" for i in range(10)], name="slice")


@pytest.fixture
def tiny():
    return Config(width=4, feat_dim=8, epochs=3, batch_size=64)


@pytest.fixture
def entry():
    return Registry()["align-uniform"]


class MemoryJob(LocalRun, JobContext):
    """A job whose data sets are given, with the shipped checkpoints."""

    job_id = "job_test"
    owner = "tester"

    def __init__(self, folder, dataset, model=None):
        super().__init__(folder, seed=0)
        self.registry = Registry()
        self.dataset_id, self.model, self._dataset = "ds_test", model, dataset

    def dataset(self, dataset_id):
        assert dataset_id == "ds_test"
        return self._dataset

    def dataset_file(self, dataset_id):
        raise KeyError(dataset_id)

    def register_dataset(self, path, name):
        raise KeyError(name)

    def checkpoint(self, model):
        return self.registry[model.partition("@")[0]].shipped()


@pytest.fixture
def make_job(tmp_path):
    return lambda dataset, model=None: MemoryJob(tmp_path, dataset, model)
