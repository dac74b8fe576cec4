"""Robust optimal transport as a method: distances, and training of a generator on dirty pictures."""

from __future__ import annotations

from collections.abc import Sequence

from models.core.checkpoint import Checkpoint
from models.core.dataset import Dataset
from models.core.figures import Figures
from models.core.method import WeightlessMethod
from models.core.outputs import Distance, Sides
from models.core.run import Run
from models.robust_ot.distance import robust_distance
from models.robust_ot.evaluate import evaluate
from models.robust_ot.schema import Config, Params
from models.robust_ot.train import train


class RobustOT(WeightlessMethod[Params, Config]):
    """Distances between sides of which parts may be outliers."""

    def predict(self, inputs: Sequence[Sides], params: Params) -> list[Distance]:
        """One :class:`Distance` for each pair of sides.

        Raises:
            InputError, MethodError: sides or radii that are not valid.
        """
        return [robust_distance(sides, params, self.device) for sides in inputs]

    @classmethod
    def train(cls, dataset: Dataset, config: Config, run: Run) -> Checkpoint:
        """Train the robust Wasserstein GAN on pictures that may be dirty; see :func:`models.robust_ot.train.train`."""
        return train(dataset, config, run)

    @classmethod
    def evaluate(cls, checkpoint: Checkpoint, run: Run, dataset: Dataset | None = None) -> Figures:
        """The proofs of distance, ranking and labelled cost; on a user's data set, with injected noise."""
        return evaluate(checkpoint, run, dataset)
