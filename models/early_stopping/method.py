"""The method behind the contract."""

from __future__ import annotations

from models.core.checkpoint import Checkpoint
from models.core.classification import ClassifierMethod
from models.core.dataset import Dataset
from models.core.figures import Figures
from models.core.run import Run
from models.early_stopping.schema import Config, Params


class StoppedClassifier(ClassifierMethod[Params, Config]):
    """A classifier of pictures, vectors or texts whose training stopped before wrong labels were fitted."""

    @classmethod
    def evaluate(cls, checkpoint: Checkpoint, run: Run, dataset: Dataset | None = None) -> Figures:
        """Reproduce a part of the proof beside the stored whole, or measure the checkpoint on ``dataset``."""
        from models.early_stopping.evaluate import evaluate_method

        return evaluate_method(checkpoint, run, dataset)
