"""A job on this machine that uploads arrays as data sets."""

import numpy as np

from tests.unit.local_job import LocalJob


class UploadingJob(LocalJob):
    def upload(self, name, **arrays):
        path = self.scratch / f"{name}.npz"
        np.savez(path, **arrays)
        return self.register_dataset(path, name)
