"""Training of an ordinary classifier, with suspects left out where asked."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from models.aum.features import Features, extract_features
from models.aum.fit import Schedule, Watch, derive_seed, fit
from models.aum.network import Classifier
from models.aum.schema import Config
from models.aum.stages import Stages
from models.aum.stopping import begin_watch
from models.core.checkpoint import Checkpoint, CheckpointConfig
from models.core.classifiers import as_tensor, described, logits_of
from models.core.dataset import Dataset
from models.core.early_stopping import check_noise_rate, stopping_figures
from models.core.figures import Figure, Figures
from models.core.inputs import ImageSpec, InputSpec, Int64, VectorSpec
from models.core.method import MethodError
from models.core.run import Run
from models.core.text import TextTransform

STAGE = "train"


def train_classifier(dataset: Dataset, config: Config, run: Run) -> Checkpoint:
    """Train on the samples that are not dropped; the accuracy on a held-out part goes into the figures.

    Raises:
        MethodError: the data set or the configuration does not fit; names it.
        Cancelled: the user asked for it.
        NonFiniteLogitsError: training diverged.
    """
    if dataset.labels is None:
        raise MethodError("dataset: it has no labels to learn")
    kept = _remaining(len(dataset), config.drop_indices)
    chosen = dataset.select(kept)
    labels = chosen.require_labels()
    if len(np.unique(labels)) < 2:
        raise MethodError("dataset: samples of at least two classes are needed")
    check_noise_rate(config.early_stopping, len(dataset.class_names))
    features = extract_features(chosen, config.encoder, image_size=config.image_size, seed=derive_seed(run.seed, 4))
    order = np.random.default_rng(derive_seed(run.seed, 3)).permutation(len(labels))
    validation = order[: round(config.validation_share * len(labels))]
    training = np.sort(order[len(validation) :])
    training, watch = begin_watch(chosen, features.inputs, training, config.early_stopping, run)
    schedule = Schedule(
        config.epochs, config.batch_size, config.learning_rate, config.weight_decay, config.augment, decay=True,
        sharpness_aware=config.sharpness_aware,
    )  # fmt: skip
    network = fit(
        Stages(run, {STAGE: 1.0}), STAGE, lambda: features.network(len(dataset.class_names)),
        features.inputs[torch.from_numpy(training)], torch.from_numpy(labels[training]), schedule,
        seed=derive_seed(run.seed, 1), watch=watch,
    )  # fmt: skip
    classes = len(dataset.class_names)
    figures = _figures(network, features, labels, training, validation, watch, classes)
    data_hash = {dataset.name or "data": dataset.sha256}
    return Checkpoint.write(
        run.scratch / "checkpoint",
        CheckpointConfig(
            method="aum",
            input=features.spec,
            config=config.model_dump(mode="json", exclude={"drop_indices"}),
            class_names=dataset.class_names,
            outputs={
                "architecture": features.architecture,
                "shape": list(features.inputs.shape[1:]),
                "dropped_samples": len(dataset) - len(kept),
                **({} if watch is None else {"epoch": watch.stopper.chosen, "stopped_at": watch.stopper.stopped_at}),
            },
            data_sha256=dataset.sha256,
            seed=run.seed,
        ),
        as_module(network, features.text).state_dict(),
        Figures(figures=figures, tables={} if watch is None else {"curve": watch.stopper.curve}, data_sha256=data_hash),
    )


def _remaining(samples: int, dropped: list[int]) -> Int64:
    outside = [index for index in dropped if not 0 <= index < samples]
    if outside:
        raise MethodError(f"drop_indices: {outside[0]} is not a position in 0..{samples - 1}")
    return np.setdiff1d(np.arange(samples), np.asarray(dropped, dtype=np.int64))


def _figures(
    network: Classifier,
    features: Features,
    labels: Int64,
    training: Int64,
    validation: Int64,
    watch: Watch | None,
    classes: int,
) -> list[Figure]:
    """Accuracies of the kept weights, and of the last ones where training went on after the stop."""
    figures = [_accuracy(network, features, labels, training, "training accuracy", f"{len(training)} samples")]
    if len(validation):
        held_out = _accuracy(network, features, labels, validation, "accuracy", f"{len(validation)} held-out samples")
        figures.insert(0, held_out)
    if watch is not None:
        chosen = watch.stopper.chosen
        figures += stopping_figures(watch.options, watch.stopper.curve[chosen - 1], chosen, classes)
        if watch.options.continue_to_end and len(validation):
            figures.append(_last_accuracy(network, watch, features, labels, validation))
    return figures


def _accuracy(
    network: Classifier, features: Features, labels: Int64, positions: Int64, name: str, setting: str
) -> Figure:
    predicted = logits_of(network, features.inputs[torch.from_numpy(positions)]).argmax(dim=1).numpy()
    return Figure(name=name, value=float((predicted == labels[positions]).mean()), setting=setting)


def _last_accuracy(network: Classifier, watch: Watch, features: Features, labels: Int64, positions: Int64) -> Figure:
    """Held-out accuracy of the last trained epoch, beside that of the chosen one."""
    kept = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    network.load_state_dict(watch.last)
    found = _accuracy(network, features, labels, positions, "accuracy", f"epoch {len(watch.stopper.curve)}")
    network.load_state_dict(kept)
    return found.model_copy(update={"subject": "last epoch"})


def as_module(network: Classifier, text: TextTransform | None) -> nn.ModuleDict:
    """Everything of a version that has weights."""
    return nn.ModuleDict({"network": network} if text is None else {"network": network, "text": text})


def read_networks(checkpoint: Checkpoint) -> tuple[Classifier, TextTransform | None]:
    """The network (and the text transform) of a checkpoint, in evaluation mode on the CPU.

    Raises:
        CheckpointError: the checkpoint is damaged.
    """
    network = described(checkpoint, Classifier)
    text = TextTransform(network.mean.numel()) if checkpoint.config.input.kind == "text" else None
    checkpoint.load_into(as_module(network, text))
    return network.eval(), text


def dataset_inputs(dataset: Dataset, spec: InputSpec, text: TextTransform | None) -> torch.Tensor:
    """The inputs of a data set as the network of a checkpoint that takes ``spec`` takes them.

    Raises:
        MethodError: vectors of another length, or with NaN or infinite values; names the row.
        InputError: the data set holds something else.
    """
    if text is not None:
        return torch.from_numpy(text.vectors(dataset.texts()))
    assert isinstance(spec, ImageSpec | VectorSpec)
    return as_tensor(dataset, spec)
