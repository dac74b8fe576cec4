"""The proof for texts: in which section of the archive is a package, told from vectors of its description?"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from models.align_uniform import losses
from models.align_uniform.data import fixed_text_pairs
from models.align_uniform.findings import MEASURES, by_group, row_table
from models.align_uniform.network import EmbeddingNetwork, open_network
from models.align_uniform.proof import LOW_LABEL_DRAWS, METRIC_SAMPLES, Row, measure_features
from models.align_uniform.proof_pictures import draw_texts
from models.align_uniform.recipes import SIMCLR
from models.align_uniform.schema import Config
from models.align_uniform.words import BagOfWords, token_matrix
from models.core import sources
from models.core.checkpoint import Checkpoint
from models.core.dataset import Dataset
from models.core.encoders import encode
from models.core.figures import Figure, Figures
from models.core.parts import measure_parts
from models.core.probes import stratified_subset, vote
from models.core.run import Run

DATA = "package-sections"
SEEDS = 3
INVERSE_PENALTY = (
    100.0  # of the probe on TF-IDF: within a point of the best of 10, 100 and 1000 on the validation split
)
METHOD, CONTRASTIVE, START, SPARSE = "align-uniform", "SimCLR (tau 0.2)", "latent semantic analysis", "TF-IDF"
RANDOM, SHIPPED = "random word vectors", "shipped"
_CHUNK = 256


def prove_texts(checkpoint: Checkpoint, run: Run) -> Figures:
    """The proof on the package descriptions: see :func:`measure_texts`.

    Raises:
        DataUnavailableError: the descriptions cannot be had.
    """
    return measure_texts(checkpoint, run, sources.load(DATA, "train"), sources.load(DATA, "test"))


def measure_texts(checkpoint: Checkpoint, run: Run, train: Dataset, test: Dataset, seeds: int = SEEDS) -> Figures:
    """Train the method and SimCLR on ``train`` without labels; measure them, what they start from, and TF-IDF.

    Writes the artifact ``align-uniform-text.png``.

    Args:
        checkpoint: a version for texts, measured as well; its configuration is that of the trainings.
        run: goes on from its resume point.
        train: texts with labels, which only the probes see.
        test: texts with the same classes.
        seeds: trainings of each kind.

    Raises:
        Cancelled: the user asked for it.
    """
    started = time.monotonic()
    bench = _Bench(Config.model_validate(checkpoint.config.config), train, test)
    measures: dict[str, Callable[[str, Run], Row]] = {
        SHIPPED: lambda name, part: bench.measure(name, SHIPPED, open_network(checkpoint)[0], part),
        SPARSE: bench.sparse,
        START: partial(bench.untrained, START, 0),
    }
    for seed in range(seeds):
        measures[f"{RANDOM}, seed {seed}"] = partial(bench.untrained, RANDOM, seed)
        measures[f"{METHOD}, seed {seed}"] = partial(bench.trained, METHOD, seed, {})
        measures[f"{CONTRASTIVE}, seed {seed}"] = partial(bench.trained, CONTRASTIVE, seed, SIMCLR)
    titles = list(measures)
    rows = measure_parts(run, titles, lambda number, part: asdict(measures[titles[number]](titles[number], part)))
    found = [Row(**row) for row in rows]
    draw_texts(run.artifact("align-uniform-text.png", "image/png"), found)
    return Figures(
        figures=figures(found, f"package descriptions, {len(train.class_names)} sections"),
        claims=claims(found),
        tables={"encoders": row_table(found)},
        data_sha256={part.name: part.sha256 for part in (train, test)},
        command="deepnight evaluate align-uniform@text",
        seconds=time.monotonic() - started,
    )


@dataclass(frozen=True)
class _Bench:
    """Measures one kind of vectors after the other on the same texts."""

    config: Config
    train: Dataset
    test: Dataset

    @cached_property
    def tokens(self) -> tuple[Tensor, Tensor]:
        """Of both parts, int32 ``(N, L)``."""
        first, second = (
            token_matrix(part.texts(), self.config.word_buckets, self.config.max_words)
            for part in (self.train, self.test)
        )
        return first, second

    @property
    def labels(self) -> tuple[Any, Any]:
        return self.train.require_labels(), self.test.require_labels()

    def features(self, name: str, group: str, encoder: BagOfWords, part: Run) -> Row:
        """Accuracies of an encoder's vectors."""
        train, test = (encode(encoder, tokens, device=part.device).numpy() for tokens in self.tokens)
        row = measure_features(name, group, train, test, *self.labels)
        part.progress(1.0, "measured", f"linear probe {100 * row.linear:.1f}%, k-NN {100 * row.knn:.1f}%")
        return row

    def measure(self, name: str, group: str, network: EmbeddingNetwork, part: Run) -> Row:
        """Accuracies before the head, L_align and L_uniform after it."""
        network.to(part.device)
        assert isinstance(network.encoder, BagOfWords)
        row = self.features(name, group, network.encoder, part)
        pair = fixed_text_pairs(self.tokens[1][:METRIC_SAMPLES], self.config)
        x, y = (encode(network, views, device=part.device) for views in pair)
        return replace(row, align=losses.alignment(x, y).item(), uniform=losses.uniformity(x).item())

    def untrained(self, group: str, seed: int, name: str, part: Run) -> Row:
        """Word vectors as drawn, or those of latent semantic analysis, which every training starts from."""
        torch.manual_seed(seed)
        encoder = BagOfWords(self.config.word_buckets, self.config.word_features)
        if group == START:
            encoder.start_from(self.tokens[0], seed)
        return self.features(name, group, encoder.to(part.device), part)

    def trained(self, group: str, seed: int, overrides: dict[str, Any], name: str, part: Run) -> Row:
        """An encoder trained on the training texts."""
        from models.align_uniform.method import AlignUniform

        part.seed = seed
        checkpoint = AlignUniform.train(self.train, self.config.model_copy(update=overrides), part)
        row = self.measure(name, group, open_network(checkpoint)[0], part)
        return replace(row, steps=len(self.train) // self.config.batch_size * self.config.epochs)

    def sparse(self, name: str, part: Run) -> Row:
        """TF-IDF of all words that two texts share, without hashing."""
        vectorizer = TfidfVectorizer(token_pattern=r"\w+", sublinear_tf=True, min_df=2)  # noqa: S106
        train = vectorizer.fit_transform(self.train.texts())
        test = vectorizer.transform(self.test.texts())
        labels, test_labels = self.labels

        def probe(chosen: Any) -> float:
            fitted = LogisticRegression(C=INVERSE_PENALTY, max_iter=300, tol=1e-3).fit(train[chosen], labels[chosen])
            return float(np.mean(fitted.predict(test) == test_labels))

        def with_labels(share: float) -> float:
            drawn = (stratified_subset(labels, share, draw) for draw in range(LOW_LABEL_DRAWS))
            return float(np.mean([probe(chosen) for chosen in drawn]))

        k = min(20, train.shape[0])
        voted = [
            vote(
                torch.from_numpy((test[start : start + _CHUNK] @ train.T).toarray()).float(),
                torch.from_numpy(labels),
                k,
            )
            for start in range(0, test.shape[0], _CHUNK)
        ]
        return Row(
            name,
            SPARSE,
            linear=probe(np.arange(len(labels))),
            knn=float(np.mean(torch.cat(voted).numpy() == test_labels)),
            low1=with_labels(0.01),
            low10=with_labels(0.1),
        )


def figures(rows: Sequence[Row], setting: str) -> list[Figure]:
    """One figure a kind of vectors and measure, with the spread over seeds."""
    found = []
    for group, members in by_group(rows).items():
        for measure, name in (*MEASURES.items(), ("align", "L_align"), ("uniform", "L_uniform")):
            values = [value for row in members if (value := getattr(row, measure)) is not None]
            if values:
                subject = "method" if group == METHOD else group
                headline = group in (METHOD, SPARSE, START) and measure in ("linear", "low1")
                found.append(Figure.over_seeds(name, values, subject=subject, setting=setting, headline=headline))
    return found


def claims(rows: Sequence[Row]) -> list[str]:
    """What the measurements say, sentence by sentence."""
    groups = by_group(rows)

    def versus(other: str) -> str:
        parts = []
        for measure, name in MEASURES.items():
            ours, theirs = (np.mean([getattr(row, measure) for row in groups[group]]) for group in (METHOD, other))
            parts.append(f"{100 * (ours - theirs):+.1f} ({name})")
        return ", ".join(parts)

    found = [
        f"Against {other}, the method trained on the texts has, in points: {versus(other)}."
        for other in (START, CONTRASTIVE, SPARSE, RANDOM)
        if other in groups and METHOD in groups
    ]
    if METHOD in groups and START in groups:
        gains = [np.mean([row.linear for row in groups[METHOD]]) - groups[START][0].linear]
        gains.append(np.mean([row.knn for row in groups[METHOD]]) - groups[START][0].knn)
        found.append(f"The training adds to what it starts from: {'holds' if min(gains) > 0 else 'does not hold'}.")
    return found
