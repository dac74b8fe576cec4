"""Early stopping of an ordinary training: what is held out for it."""

from __future__ import annotations

import numpy as np
import torch

from models.aum.fit import Watch
from models.core.dataset import Dataset
from models.core.early_stopping import hold_out
from models.core.inputs import Int64
from models.core.run import Run
from models.core.trainer_options import EarlyStopping


def begin_watch(
    dataset: Dataset, inputs: torch.Tensor, training: Int64, options: EarlyStopping | None, run: Run
) -> tuple[Int64, Watch | None]:
    """Positions to train on, of those in ``training``, and what watches over them: accuracy needs some held out.

    Args:
        inputs: of all samples of ``dataset``.

    Raises:
        MethodError: nothing would be held out.
    """
    if options is None:
        return training, None
    kept, held = np.arange(len(training)), np.arange(0)
    if options.rule == "noisy-validation":
        kept, held = hold_out(dataset.select(training), options, run.seed, run)
    chosen = torch.from_numpy(training[held])
    labels = torch.from_numpy(dataset.require_labels())
    return training[kept], Watch(options, inputs[chosen], labels[chosen])
