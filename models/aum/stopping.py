"""Early stopping of an ordinary training: what is held out for it, and what it found."""

from __future__ import annotations

import numpy as np
import torch

from models.aum.fit import Watch
from models.core.dataset import Dataset
from models.core.early_stopping import FEW_SAMPLES, estimated_clean_accuracy, validation_split
from models.core.figures import Figure
from models.core.inputs import Int64
from models.core.method import MethodError
from models.core.run import Run
from models.core.trainer_options import EarlyStopping


def check_noise_rate(options: EarlyStopping | None, classes: int) -> None:
    """Say before the training that nothing could be estimated after it.

    Raises:
        MethodError: at the given noise rate labels say nothing.
    """
    if options is not None and options.noise_rate is not None:
        try:
            estimated_clean_accuracy(0.5, options.noise_rate, classes)
        except ValueError as error:
            raise MethodError(f"early_stopping.{error}") from error


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
        kept, held = validation_split(dataset.select(training), options.validation_share, run.seed)
        if not len(held):
            raise MethodError("early_stopping.validation_share: it holds out no sample")
        if len(held) < FEW_SAMPLES:
            error = 50 / len(held) ** 0.5
            run.log(f"only {len(held)} samples choose the epoch: one standard error is up to {error:.1f} points")
    chosen = torch.from_numpy(training[held])
    labels = torch.from_numpy(dataset.require_labels())
    return training[kept], Watch(options, inputs[chosen], labels[chosen])


def stopping_figures(watch: Watch, classes: int) -> list[Figure]:
    """The accuracy and the distance at the chosen epoch."""
    stopper, options = watch.stopper, watch.options
    row = stopper.curve[stopper.chosen - 1]
    setting = f"epoch {stopper.chosen}, rule {options.rule}"
    figures = [Figure(name="relative distance", value=float(row["relative_distance"] or 0.0), setting=setting)]
    accuracy = row["validation_accuracy"]
    if accuracy is not None:
        figures.append(Figure(name="noisy-validation accuracy", value=accuracy, setting=setting))
        if options.noise_rate is not None:
            value = estimated_clean_accuracy(accuracy, options.noise_rate, classes)
            figures.append(
                Figure(name="estimated clean accuracy", value=value, setting=f"noise {options.noise_rate:g}")
            )
    return figures
