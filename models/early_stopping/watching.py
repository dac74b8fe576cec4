"""One training on partly wrong labels, watched to the end: what is fitted when, and where it would have stopped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from models.core.classifiers import Classifier, logits_of
from models.core.margins import margin
from models.core.run import Run
from models.core.supervised import Fitted, Recipe, fit_classifier

MARGIN_QUANTILES = (0.1, 0.5, 0.9)


@dataclass(frozen=True, eq=False)
class Labelled:
    """Inputs with labels as given and, where they are known, the true ones."""

    inputs: Tensor
    labels: Tensor
    truth: Tensor | None = None

    @property
    def wrong(self) -> Tensor | None:
        """Where the label is known to be wrong, bool ``(N,)``; None where nothing is known or nothing is wrong."""
        wrong = None if self.truth is None else self.labels != self.truth
        return wrong if wrong is not None and bool(wrong.any()) else None


def observer(training: Labelled, test: Labelled | None) -> Callable[[Classifier], dict[str, float]]:
    """Measures after an epoch.

    ``train_accuracy`` is against the given labels, ``margin_*`` quantiles of their logit margins; ``fit_clean``
    is the accuracy on rows whose label is right, ``fit_corrupt`` the share of wrong labels that are predicted,
    ``true_accuracy`` the accuracy against the true labels, ``test`` that on the test set.
    """

    def observe(network: Classifier) -> dict[str, float]:
        logits = logits_of(network, training.inputs)
        hit = logits.argmax(dim=1) == training.labels
        quantiles = torch.quantile(margin(logits, training.labels), torch.tensor(MARGIN_QUANTILES))
        row = {"train_accuracy": _mean(hit)}
        row |= {f"margin_{q:g}": float(value) for q, value in zip(MARGIN_QUANTILES, quantiles, strict=True)}
        if training.wrong is not None and training.truth is not None:
            row |= {"fit_clean": _mean(hit[~training.wrong]), "fit_corrupt": _mean(hit[training.wrong])}
            row["true_accuracy"] = _mean(logits.argmax(dim=1) == training.truth)
        if test is not None:
            row["test"] = _mean(logits_of(network, test.inputs).argmax(dim=1) == test.labels)
        return row

    return observe


def _mean(hits: Tensor) -> float:
    return float(hits.double().mean())


def watch_training(
    build: Callable[[], Classifier],
    training: Labelled,
    validation: Labelled,
    recipe: Recipe,
    run: Run,
    *,
    seed: int,
    test: Labelled | None = None,
) -> tuple[Fitted, dict[str, Any]]:
    """Train all epochs; the rule's choice and what going on costs, measured on the noisy validation labels.

    Args:
        recipe: its ``early_stopping`` continues to the end.

    Raises:
        DivergedError: the training diverged.
        Cancelled: the user asked for it.
    """
    fitted = fit_classifier(
        build, training.inputs, training.labels, recipe, run, seed=seed,
        validation=(validation.inputs, validation.labels), observe=observer(training, test),
    )  # fmt: skip
    stopped, last = fitted.curve[fitted.epoch - 1], fitted.curve[-1]
    cost = float(stopped["validation_accuracy"] or 0) - float(last["validation_accuracy"] or 0)
    facts = {"epoch": fitted.epoch, "stopped_at": fitted.stopped_at, "cost": cost, "curve": fitted.curve}
    return fitted, facts
