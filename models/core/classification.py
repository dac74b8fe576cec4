"""Methods whose versions are classifiers of pictures, vectors or texts, trained by :mod:`models.core.supervised`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import BaseModel
from torch import Tensor, nn

from models.core.checkpoint import Checkpoint, CheckpointConfig
from models.core.classifiers import (
    Architecture,
    Classifier,
    as_tensor,
    batch_tensor,
    build_classifier,
    classifier_inputs,
    input_spec,
    logits_of,
    match_labels,
    read_classifier,
)
from models.core.dataset import Dataset
from models.core.devices import pick_device
from models.core.early_stopping import check_noise_rate, hold_out, stopping_figures, validation_split
from models.core.figures import Figure, Figures
from models.core.inputs import Float32, ImageSpec, InputSpec, TextSpec, VectorSpec
from models.core.method import Method, MethodError
from models.core.run import Run
from models.core.supervised import Fitted, Recipe, fit_classifier
from models.core.text import vectorise
from models.core.trainer_options import ClassifierConfig

ParamsT = TypeVar("ParamsT", bound=BaseModel)
ConfigT = TypeVar("ConfigT", bound=ClassifierConfig)


class ClassifierMethod(Method[ParamsT, ConfigT]):
    """Load, predict, train and the loss of a classifier; what is proved about it is the subclass's."""

    def __init__(self, network: Classifier, spec: InputSpec, class_names: list[str]) -> None:
        self.network, self.spec, self.class_names = network, spec, class_names

    @classmethod
    def load(cls, checkpoint: Checkpoint, device: torch.device) -> ClassifierMethod[ParamsT, ConfigT]:
        """Build the network of ``checkpoint`` on ``device``."""
        network = read_classifier(checkpoint)
        network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if network.text is not None:
            network.text.cpu()  # scipy multiplies with it
        return cls(network, checkpoint.config.input, checkpoint.config.class_names)

    def predict(self, inputs: Any, params: ParamsT) -> Sequence[Float32]:
        """Float32 ``(C,)`` probabilities of uint8 ``(N, H, W, C)``, float32 ``(N, D)`` or N texts."""
        rows = inputs if self.network.text is None else self.network.text.vectors(inputs)
        return list(logits_of(self.network, batch_tensor(rows)).softmax(dim=1).numpy())

    @classmethod
    def train(cls, dataset: Dataset, config: ConfigT, run: Run) -> Checkpoint:
        """Train on the labels as they are; see :func:`train_classifier`."""
        return train_classifier(cls.card.slug, dataset, config, run)

    def objective(self, dataset: Dataset) -> tuple[nn.Module, Callable[[], Tensor]]:
        """The network and its mean cross-entropy on ``dataset``."""
        inputs = classifier_inputs(self.network, dataset, self.spec).to(self.network.mean.device)
        labels = match_labels(dataset, self.class_names).to(inputs.device)
        return self.network, lambda: F.cross_entropy(self.network(inputs), labels)


def recipe_of(config: ClassifierConfig) -> Recipe:
    """The training that a configuration describes."""
    return Recipe(
        epochs=config.epochs,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        optimizer=config.optimizer,
        weight_decay=config.weight_decay,
        cosine=config.cosine,
        shift=config.shift,
        clip_norm=config.clip_norm,
        sharpness_aware=config.sharpness_aware,
        early_stopping=config.early_stopping,
    )


def architecture_of(dataset: Dataset, encoder: str) -> Architecture:
    """The network for a data set.

    Raises:
        MethodError: it takes pictures and the data set holds none.
    """
    pictures = dataset.kind == "images"
    if not pictures and encoder not in ("auto", "mlp"):
        raise MethodError(f"encoder: {encoder} takes pictures, the data set holds {dataset.kind}")
    return ("small-cnn" if pictures else "mlp") if encoder == "auto" else encoder  # type: ignore[return-value]


def check_labels(dataset: Dataset) -> None:
    """Whether there is anything to learn.

    Raises:
        MethodError: there are no labels, or all are the same.
    """
    if dataset.labels is None:
        raise MethodError("dataset: it has no labels to learn")
    if len(np.unique(dataset.labels)) < 2:
        raise MethodError("dataset: samples of at least two classes are needed")


def train_classifier(slug: str, dataset: Dataset, config: ClassifierConfig, run: Run) -> Checkpoint:
    """Train on one part of the data, stop on a second one where asked, and measure on a third.

    Raises:
        MethodError: the data set or the configuration does not fit, or training diverged; names it.
        Cancelled: the user asked for it.
    """
    check_labels(dataset)
    check_noise_rate(config.early_stopping, len(dataset.class_names))
    architecture, given = architecture_of(dataset, config.encoder), dataset
    remaining, test = validation_split(dataset, config.test_share, run.seed)
    dataset, text = vectorise(dataset, remaining, run.seed)
    spec = input_spec(dataset, config.image_size)
    training, validation = dataset.select(remaining), None
    stopping = config.early_stopping
    if stopping is not None and stopping.rule == "noisy-validation":
        kept, held = hold_out(training, stopping, run.seed + 1, run)
        validation = (as_tensor(training.select(held), spec), torch.from_numpy(training.require_labels()[held]))
        training = training.select(kept)
    inputs = as_tensor(training, spec)
    fitted = fit_classifier(
        lambda: build_classifier(architecture, inputs, len(dataset.class_names)),
        inputs, torch.from_numpy(training.require_labels()), recipe_of(config), run, seed=run.seed,
        validation=validation,
    )  # fmt: skip
    held_out = dataset.select(test)
    figures = training_figures(fitted, spec, training, held_out, config, len(dataset.class_names))
    facts: dict[str, Any] = {"architecture": architecture, "shape": list(inputs.shape[1:]), "epoch": fitted.epoch}
    facts |= {"steps": fitted.steps, "perturbed_steps": fitted.perturbed_steps, "stopped_at": fitted.stopped_at}
    fitted.network.text = text
    return Checkpoint.write(
        run.scratch / "checkpoint",
        CheckpointConfig(
            method=slug, input=spec if text is None else TextSpec(), config=config.model_dump(mode="json"),
            class_names=given.class_names, outputs=facts, data_sha256=given.sha256, seed=run.seed,
        ),
        fitted.network.state_dict(),
        Figures(figures=figures, tables={"curve": fitted.curve}, data_sha256={given.name or "data": given.sha256}),
    )  # fmt: skip


def accuracy(network: Classifier, inputs: Tensor, labels: Tensor) -> float:
    """Share of right predictions."""
    return float((logits_of(network, inputs).argmax(dim=1) == labels).double().mean())


def training_figures(
    fitted: Fitted,
    spec: ImageSpec | VectorSpec,
    training: Dataset,
    held_out: Dataset,
    config: ClassifierConfig,
    classes: int,
) -> list[Figure]:
    """Accuracies of the kept weights, and of the last ones where training went on after the stop."""
    sets = {"accuracy": held_out, "training accuracy": training}
    tensors = {
        name: (as_tensor(part, spec), torch.from_numpy(part.require_labels()))
        for name, part in sets.items()
        if len(part)
    }
    figures = [
        Figure(name=name, value=accuracy(fitted.network, *pair), setting=f"{len(pair[1])} samples, labels as given")
        for name, pair in tensors.items()
    ]
    stopping = config.early_stopping
    if stopping is None:
        return figures
    kept = {name: tensor.clone() for name, tensor in fitted.network.state_dict().items()}
    figures += stopping_figures(stopping, fitted.curve[fitted.epoch - 1], fitted.epoch, classes)
    if stopping.continue_to_end and "accuracy" in tensors:
        fitted.network.load_state_dict(fitted.last)
        value = accuracy(fitted.network, *tensors["accuracy"])
        fitted.network.load_state_dict(kept)
        figures.append(Figure(name="accuracy", value=value, subject="last epoch", setting=f"epoch {len(fitted.curve)}"))
    return figures


def user_figures(checkpoint: Checkpoint, dataset: Dataset, device: str) -> list[Figure]:
    """Accuracy and cross-entropy of a checkpoint on a labelled data set, matched by class name."""
    network = read_classifier(checkpoint)
    inputs = classifier_inputs(network, dataset, checkpoint.config.input)
    logits = logits_of(network.to(pick_device(device)), inputs)
    return label_figures(logits, dataset, checkpoint.config.class_names)


def label_figures(logits: Tensor, dataset: Dataset, class_names: list[str]) -> list[Figure]:
    """Accuracy and cross-entropy of ``logits`` ``(N, C)`` of the classes ``class_names`` on a data set's labels.

    Raises:
        MethodError: a class of the data set is unknown; names it.
    """
    labels = match_labels(dataset, class_names)
    setting = f"{dataset.name or 'data set'}, N={len(labels):,}"
    right = float((logits.argmax(dim=1) == labels).double().mean())
    entropy = float(F.cross_entropy(logits.double(), labels))
    return [
        Figure(name="accuracy", value=right, setting=setting),
        Figure(name="cross-entropy", value=entropy, unit="nats", setting=setting),
    ]
