"""The job `embedding-quality`: what the vectors of a data set, or of any embedding model on it, are worth."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from models.align_uniform import losses, metrics
from models.align_uniform.data import fixed_pairs
from models.align_uniform.pictures import draw_circle, draw_distances
from models.align_uniform.schema import EmbeddingQuality
from models.core.augment import ViewPolicy
from models.core.dataset import Dataset
from models.core.inputs import Float64, ImageSpec, Int64
from models.core.jobs import JobContext
from models.core.method import MethodError
from models.core.probes import knn_predict
from models.core.registry import parse_model_id

MINIMUM = 16
DEFAULT_MODEL = "align-uniform"


@dataclass(frozen=True)
class Embedded:
    """Unit rows to measure.

    Attributes:
        rows: float32 ``(N, m)``.
        pairs: positive pairs, two float32 ``(P, m)``, or None.
        labels: int64 ``(N,)``, or None.
        class_names: names of the labels.
    """

    rows: Tensor
    pairs: tuple[Tensor, Tensor] | None
    labels: Int64 | None
    class_names: list[str]


def run(job: JobContext, parameters: EmbeddingQuality) -> dict[str, Any]:
    """Measure the job's data set: through a model where one is named or it holds pictures, else vectors as they are.

    Raises:
        MethodError: the data set or the model does not fit.
        UnknownMethodError, UnknownVersionError: there is no such model.
        Cancelled: the user asked for it.
    """
    if job.dataset_id is None:
        raise MethodError("dataset: the job needs one")
    job.progress(0.02, "read")
    dataset = job.dataset(job.dataset_id)
    chosen = sample(dataset, parameters.max_samples, job.seed)
    job.progress(0.1, "embed", f"{len(chosen)} of {len(dataset)} samples")
    model = parameters.model or job.model or (DEFAULT_MODEL if dataset.kind == "images" else None)
    if model is not None:
        embedded = embed_by_model(chosen, model, job, parameters)
    else:
        embedded = embed_vectors(chosen, parameters, job.seed)
    job.progress(0.5, "measure", f"{len(embedded.rows)} vectors of {embedded.rows.shape[1]} dimensions")
    report = measure(embedded, parameters)
    job.progress(0.8, "draw")
    draw_circle(job.artifact("circle.png", "image/png"), embedded.rows, embedded.labels, embedded.class_names)
    if embedded.pairs is not None:
        draw_distances(job.artifact("distances.png", "image/png"), positive_distances(embedded.pairs), embedded.rows)
    job.progress(1.0, "done")
    return {"object": "embedding-quality", "model": model, "dataset": job.dataset_id, "of": len(dataset), **report}


def sample(dataset: Dataset, limit: int, seed: int) -> Dataset:
    """At most ``limit`` samples, drawn from ``seed``, in their order (consecutive rows stay together).

    Raises:
        MethodError: too few samples to measure anything.
    """
    if len(dataset) < MINIMUM:
        raise MethodError(f"dataset: at least {MINIMUM} samples are needed, this one has {len(dataset)}")
    if len(dataset) <= limit:
        return dataset
    couples = np.random.default_rng(seed).permutation(len(dataset) // 2)[: limit // 2]
    first = 2 * np.sort(couples)
    return dataset.select(np.stack([first, first + 1], axis=1).ravel().astype(np.int64))


def embed_vectors(dataset: Dataset, parameters: EmbeddingQuality, seed: int) -> Embedded:
    """Uploaded vectors, scaled to unit length.

    Raises:
        MethodError: they are not vectors, a vector is zero or not finite, or there are no such positive pairs.
    """
    if dataset.kind != "vectors":
        raise MethodError(f"model: a data set of {dataset.kind} needs an embedding model")
    vectors = torch.from_numpy(np.array(dataset.vectors()))
    lengths = vectors.norm(dim=1)
    bad = torch.nonzero(~(torch.isfinite(lengths) & (lengths > 0))).flatten()
    if len(bad):
        raise MethodError(f"dataset: row {int(bad[0])} is zero or not finite, so it has no direction")
    if vectors.shape[1] < 2:
        raise MethodError("dataset: vectors of one dimension have no sphere")
    rows = F.normalize(vectors, dim=1)
    return Embedded(rows, _given_pairs(rows, dataset, parameters, seed), dataset.labels, dataset.class_names)


def embed_by_model(dataset: Dataset, model: str, job: JobContext, parameters: EmbeddingQuality) -> Embedded:
    """The data set through any embedding model of the registry.

    Raises:
        MethodError: the model embeds nothing, or nothing of this kind.
    """
    embed, spec = _embedder(model, job, parameters)
    if not isinstance(spec, ImageSpec):
        return _embed_items(dataset, embed, parameters, job.seed)
    if dataset.kind != "images":
        raise MethodError(f"model: {model} embeds pictures, the data set holds {dataset.kind}")
    pictures = dataset.images(spec)
    rows = embed(pictures)
    if parameters.positives not in ("auto", "augment"):
        pairs = _given_pairs(rows, dataset, parameters, job.seed)
        return Embedded(rows, pairs, dataset.labels, dataset.class_names)
    if spec.height != spec.width:
        raise MethodError(f"positives: views are square, {model} takes {spec.height} x {spec.width}")
    job.progress(0.3, "embed", "two views of each picture")
    views = ViewPolicy(spec.height, parameters.crop_scale, parameters.flip, parameters.jitter)
    tensor = torch.from_numpy(np.array(pictures)).permute(0, 3, 1, 2)
    first, second = (
        embed((view * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy())
        for view in fixed_pairs(tensor, views, job.seed)
    )
    return Embedded(rows, (first, second), dataset.labels, dataset.class_names)


def _embed_items(dataset: Dataset, embed: Callable[[Any], Tensor], parameters: EmbeddingQuality, seed: int) -> Embedded:
    rows = embed(dataset.vectors() if dataset.kind == "vectors" else dataset.texts())
    return Embedded(rows, _given_pairs(rows, dataset, parameters, seed), dataset.labels, dataset.class_names)


def _embedder(model: str, job: JobContext, parameters: EmbeddingQuality) -> tuple[Callable[[Any], Tensor], Any]:
    entry = job.registry[parse_model_id(model)[0]]
    if entry.card.capability != "embed":
        raise MethodError(f"model: {model} does not embed (its capability is {entry.card.capability})")
    chosen = {} if parameters.space is None else {"space": parameters.space}
    if chosen and "space" not in entry.params.model_fields:
        raise MethodError(f"space: {model} has no choice of space")
    params = entry.params(**chosen)
    checkpoint = job.checkpoint(model)
    loaded = entry.method.load(checkpoint, torch.device(job.device))

    def embed(inputs: Any) -> Tensor:
        return F.normalize(torch.from_numpy(np.stack(loaded.predict(inputs, params)).astype(np.float32)), dim=1)

    return embed, checkpoint.config.input


def _given_pairs(
    rows: Tensor, dataset: Dataset, parameters: EmbeddingQuality, seed: int
) -> tuple[Tensor, Tensor] | None:
    kind = parameters.positives
    if kind == "auto":
        kind = "none" if dataset.labels is None else "class"
    if kind == "augment":
        raise MethodError("positives: `augment` makes views of pictures; give `consecutive`, `class` or `none`")
    if kind == "none":
        return None
    if kind == "consecutive":
        if len(rows) % 2:
            raise MethodError(f"positives: `consecutive` pairs rows 2i and 2i+1, but {len(rows)} rows is odd")
        return rows[0::2], rows[1::2]
    if dataset.labels is None:
        raise MethodError("positives: `class` needs labels")
    first, second = class_pairs(dataset.labels, seed)
    if len(first) == 0:
        raise MethodError("positives: no class has two members")
    return rows[torch.from_numpy(first)], rows[torch.from_numpy(second)]


def class_pairs(labels: Int64, seed: int) -> tuple[Int64, Int64]:
    """Each sample with another one of its class: in random order, the next member."""
    generator = np.random.default_rng(seed)
    first, second = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
    for label in np.unique(labels):
        members = generator.permutation(np.flatnonzero(labels == label))
        if len(members) > 1:
            first.append(members)
            second.append(np.roll(members, -1))
    return np.concatenate(first), np.concatenate(second)


def positive_distances(pairs: tuple[Tensor, Tensor]) -> Float64:
    """Euclidean distance of each positive pair, in [0, 2]."""
    distances: Float64 = (pairs[0].double() - pairs[1].double()).norm(dim=1).numpy()
    return distances


def measure(embedded: Embedded, parameters: EmbeddingQuality) -> dict[str, Any]:
    """All figures of one set of unit rows, JSON-serialisable."""
    rows, k = embedded.rows, min(parameters.neighbours, len(embedded.rows) - 1)
    report: dict[str, Any] = {
        "samples": len(rows),
        "dimensions": rows.shape[1],
        "uniform": metrics.uniformity_of(rows, parameters.t),
        "uniform_optimum": losses.uniformity_optimum(rows.shape[1], parameters.t),
        "effective_rank": metrics.effective_rank(rows),
        "hubness": {"k": k, **metrics.hubness(rows, k)},
        "align": None,
        "positive_distances": None,
        "per_class": [],
        "knn_accuracy": None,
    }
    if embedded.pairs is not None:
        report["align"] = losses.alignment(*embedded.pairs, parameters.alpha).item()
        report["positive_distances"] = _distribution(positive_distances(embedded.pairs))
    if embedded.labels is not None:
        inside = metrics.class_uniformity(rows, embedded.labels, len(embedded.class_names), parameters.t)
        counts = np.bincount(embedded.labels, minlength=len(embedded.class_names))
        report["per_class"] = [
            {"class": name, "samples": int(count), "uniform": value}
            for name, count, value in zip(embedded.class_names, counts, inside, strict=True)
        ]
        predicted = knn_predict(rows.numpy(), embedded.labels, rows.numpy(), k=k, leave_one_out=True)
        report["knn_accuracy"] = float(np.mean(predicted == embedded.labels))
    report["warnings"] = _warnings(report)
    return report


def _distribution(distances: Float64) -> dict[str, Any]:
    counts, edges = np.histogram(distances, bins=40, range=(0.0, 2.0))
    return {
        "mean": float(distances.mean()),
        "median": float(np.median(distances)),
        "p90": float(np.quantile(distances, 0.9)),
        "histogram": {"edges": [round(float(edge), 3) for edge in edges], "counts": counts.tolist()},
    }


def _warnings(report: dict[str, Any]) -> list[str]:
    found = []
    if report["effective_rank"] < 0.1 * min(report["dimensions"], report["samples"]):
        found.append(
            f"the vectors use few of their directions: effective rank {report['effective_rank']:.1f} "
            f"of {report['dimensions']}"
        )
    if report["hubness"]["skewness"] > 2:
        found.append("some vectors are near neighbours of very many others (hubs): nearest-neighbour search suffers")
    if report["align"] is not None and report["align"] < 0.01 and report["uniform"] > -0.5:
        found.append("collapsed: positive pairs coincide, but so does nearly everything else")
    return found
