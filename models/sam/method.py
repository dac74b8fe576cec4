"""The method behind the contract."""

from __future__ import annotations

from models.core.checkpoint import Checkpoint
from models.core.classification import ClassifierMethod
from models.core.dataset import Dataset
from models.core.figures import Figures
from models.core.run import Run
from models.sam.schema import Config, Params


class Sam(ClassifierMethod[Params, Config]):
    """A classifier of pictures, vectors or texts trained with sharpness-aware minimization."""

    @classmethod
    def evaluate(cls, checkpoint: Checkpoint, run: Run, dataset: Dataset | None = None) -> Figures:
        """Reproduce a part of the proof beside the stored whole, or measure the checkpoint on ``dataset``."""
        from models.sam.evaluate import evaluate_method

        return evaluate_method(checkpoint, run, dataset)
