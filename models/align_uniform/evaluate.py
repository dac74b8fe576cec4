"""Measurements of a checkpoint: on the user's data, or the whole proof."""

from __future__ import annotations

import time
from collections.abc import Collection

import numpy as np
import torch
from torch.nn import functional as F

from models.align_uniform import losses, metrics
from models.align_uniform.data import fixed_pairs, fixed_text_pairs, image_tensor
from models.align_uniform.findings import MEASURES, Table, by_group, claims, group_figures, row_table
from models.align_uniform.network import EmbeddingNetwork, open_network
from models.align_uniform.proof import (
    METRIC_SAMPLES,
    ProofData,
    Row,
    measure_all,
    measure_network,
    proof_data,
    rank_correlations,
    theorem_on_circle,
    theorem_on_features,
)
from models.align_uniform.proof_pictures import Arcs, draw_proof
from models.align_uniform.recipes import DATA, SPEC, training_data
from models.align_uniform.schema import Config, Space
from models.align_uniform.shipping import open_encoder, read_index
from models.align_uniform.text_proof import prove_texts
from models.align_uniform.train import policy
from models.align_uniform.words import token_matrix
from models.core import sources
from models.core.checkpoint import Checkpoint
from models.core.dataset import Dataset
from models.core.encoders import encode
from models.core.figures import Figure, Figures
from models.core.inputs import Float32, ImageSpec, TextSpec
from models.core.method import MethodError
from models.core.probes import knn_accuracy, knn_predict, linear_probe, stratified_subset
from models.core.run import Run

SAMPLES = 4000
TRUNCATED = (8, 16, 32, 64)
SPACES: tuple[Space, Space] = ("penultimate", "projection")


def evaluate_on(checkpoint: Checkpoint, run: Run, dataset: Dataset) -> Figures:
    """L_align, L_uniform and, where there are labels, k-NN accuracy of ``checkpoint`` on the user's data.

    A random sample of at most 4,000 pictures or texts, fixed by the run's seed, with the training's own augmentations.

    Raises:
        MethodError: not what the checkpoint takes, or fewer than 16 samples.
        InputError: a picture does not fit.
    """
    started = time.monotonic()
    network, spec = open_network(checkpoint)
    kind = "images" if isinstance(spec, ImageSpec) else "text"
    if dataset.kind != kind or len(dataset) < 16:
        raise MethodError(f"dataset: at least 16 {kind} are needed, this one holds {len(dataset)} {dataset.kind}")
    config = Config.model_validate(checkpoint.config.config)
    network.to(run.device)
    order = np.random.default_rng(run.seed).permutation(len(dataset))[:SAMPLES]
    chosen = dataset.select(np.sort(order).astype(np.int64))
    run.progress(0.2, "embed", f"{len(chosen)} {kind} and two views of each")
    setting = f"{dataset.name or 'data set'}, {len(chosen)} of {len(dataset)} {kind}"
    if isinstance(spec, ImageSpec):
        inputs = image_tensor(chosen, spec)
        pair = fixed_pairs(inputs, policy(config), run.seed)
    else:
        inputs = token_matrix(chosen.texts(), config.word_buckets, config.max_words)
        pair = fixed_text_pairs(inputs, config, run.seed)
    first, second, plain = (_both_spaces(network, part, run) for part in (*pair, inputs))
    run.progress(0.7, "measure")
    figures = []
    for position, space in enumerate(SPACES):
        x, y, unit = (F.normalize(rows[position], dim=1) for rows in (first, second, plain))
        values = {
            "L_align": losses.alignment(x, y, config.alpha).item(),
            "L_uniform": metrics.uniformity_of(unit, config.t),
            "effective rank": metrics.effective_rank(unit),
        }
        if chosen.labels is not None and len(np.unique(chosen.labels)) > 1:
            values |= _labelled(plain[position].numpy(), chosen, run.seed)
        figures += [Figure(name=name, value=value, setting=f"{setting}, {space}") for name, value in values.items()]
    run.progress(1.0, "done")
    return Figures(
        figures=figures,
        data_sha256={dataset.name or "dataset": dataset.sha256},
        command="deepnight evaluate align-uniform --dataset",
        seconds=time.monotonic() - started,
    )


def _both_spaces(network: EmbeddingNetwork, inputs: torch.Tensor, run: Run) -> tuple[torch.Tensor, torch.Tensor]:
    penultimate = encode(network.encoder, inputs, device=run.device)
    with torch.inference_mode():
        return penultimate, network.head(penultimate.to(run.device)).float().cpu()


def _labelled(rows: Float32, dataset: Dataset, seed: int) -> dict[str, float]:
    labels = dataset.require_labels()
    k = min(20, len(rows) - 1)
    found = {
        f"k-NN accuracy (k={k}, leave one out)": float(
            np.mean(knn_predict(rows, labels, rows, k=k, leave_one_out=True) == labels)
        )
    }
    counts = np.bincount(labels)
    if counts[counts > 0].min() >= 4:
        inside = stratified_subset(labels, 0.5, seed)
        outside = np.setdiff1d(np.arange(len(labels)), inside)
        found["linear probe accuracy"] = linear_probe(rows[inside], labels[inside], rows[outside], labels[outside])
    return found


def prove(checkpoint: Checkpoint, run: Run) -> Figures:
    """The proof of the checkpoint's kind: :func:`measure_proof` on Fashion-MNIST, or that of texts.

    Raises:
        DataUnavailableError: its data cannot be had.
    """
    if isinstance(checkpoint.config.input, TextSpec):
        return prove_texts(checkpoint, run)
    return measure_proof(checkpoint, run, training_data(), sources.load(DATA, "test"))


def measure_proof(
    checkpoint: Checkpoint, run: Run, train: Dataset, test: Dataset, encoders: Collection[str] | None = None
) -> Figures:
    """Measure every encoder of the proof, the baselines, the checkpoint and Theorem 1 again from what ships.

    Writes the artifact ``align-uniform.png``.

    Args:
        train: pictures with labels, for the probes.
        test: pictures with labels that the accuracies and metrics are measured on.
        encoders: names of the proof's encoders to measure; all when absent.

    Raises:
        CheckpointError: an encoder of the proof is missing or damaged.
        MethodError: the checkpoint takes other pictures than the proof's.
        Cancelled: the user asked for it.
    """
    started = time.monotonic()
    network, spec = open_network(checkpoint)
    if spec != SPEC:
        taken = f"{spec.shape} pictures" if isinstance(spec, ImageSpec) else "texts"
        raise MethodError(f"model: the proof needs a checkpoint for {SPEC.shape} pictures, this one takes {taken}")
    data = proof_data(train, test)

    rows = measure_all(data, run, encoders)
    groups = by_group(rows)
    name = f"{checkpoint.config.method}@{checkpoint.config.version}"
    shipped = measure_network(name, "shipped", network, data, run.device)
    circle = theorem_on_circle()
    x, y = (encode(network, views, device=run.device) for views in (data.first, data.second))
    features = theorem_on_features(x, y)
    correlations = rank_correlations(rows)
    draw_proof(run.artifact("align-uniform.png", "image/png"), rows, circle, features, _arcs(test))
    return Figures(
        figures=[*_shipped_figures(shipped), *group_figures(groups)],
        claims=claims(groups, correlations, circle),
        tables={
            "encoders": row_table([shipped, *rows]),
            "theorem on the circle": circle,
            "theorem on the shipped encoder": features,
            "spearman with linear-probe accuracy": [dict(correlations)],
            "truncation": _truncation(network, data, run.device),
        },
        data_sha256={part.name: part.sha256 for part in (train, test)},
        command="deepnight evaluate align-uniform",
        seconds=time.monotonic() - started,
    )


def _shipped_figures(row: Row) -> list[Figure]:
    setting = "Fashion-MNIST, shipped checkpoint, probes on 20,000 labels"
    values = {name: getattr(row, measure) for measure, name in MEASURES.items()}
    values |= {"L_align": row.align, "L_uniform": row.uniform}
    return [
        Figure(name=name, value=value, setting=setting, headline=name == MEASURES["linear"])
        for name, value in values.items()
    ]


def _truncation(network: EmbeddingNetwork, data: ProofData, device: str) -> Table:
    """k-NN accuracy of the first dimensions on principal axes."""
    train, test = (encode(network.encoder, images, device=device) for images in (data.images, data.test_images))
    train, test = (rows @ network.penultimate_axes.cpu() for rows in (train, test))
    sizes = [size for size in (*TRUNCATED, train.shape[1]) if size <= train.shape[1]]
    k = min(20, len(train))
    return [
        {
            "dimensions": size,
            "knn": knn_accuracy(train[:, :size].numpy(), data.labels, test[:, :size].numpy(), data.test_labels, k=k),
        }
        for size in sizes
    ]


def _arcs(test: Dataset) -> Arcs | None:
    index = read_index()
    if "circle-s0" not in index:
        return None
    shown = test.select(np.arange(min(METRIC_SAMPLES, len(test))))
    rows = encode(open_encoder("circle-s0", index["circle-s0"]), image_tensor(shown, SPEC), device="cpu")
    return rows, shown.require_labels(), shown.class_names
