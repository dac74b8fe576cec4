"""The optimal transport data set distance as a method."""

from __future__ import annotations

from collections.abc import Sequence

from models.core.checkpoint import Checkpoint
from models.core.dataset import Dataset
from models.core.figures import Figures
from models.core.method import WeightlessMethod
from models.core.outputs import Distance, Sides
from models.core.run import Run
from models.otdd.distance import otdd
from models.otdd.evaluate import evaluate
from models.otdd.schema import Config, Params


class OTDD(WeightlessMethod[Params, Config]):
    """Distances between labelled data sets."""

    def predict(self, inputs: Sequence[Sides], params: Params) -> list[Distance]:
        """One :class:`Distance` for each pair of sides.

        Raises:
            MethodError: sides that are not valid for ``params``.
        """
        return [otdd(sides, params, self.device) for sides in inputs]

    @classmethod
    def evaluate(cls, checkpoint: Checkpoint, run: Run, dataset: Dataset | None = None) -> Figures:
        """The proofs of alignment, drift, transfer and approximation; on a user's data set, its own drift."""
        return evaluate(checkpoint, run, dataset)
