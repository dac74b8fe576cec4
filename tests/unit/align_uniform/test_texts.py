"""Texts: tokens, views, the encoder and its training, from words to served vectors."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from models.align_uniform.schema import Config
from models.align_uniform.text_proof import CONTRASTIVE, METHOD, RANDOM, SHIPPED, SPARSE, START, measure_texts
from models.align_uniform.words import NO_WORD, PAD, BagOfWords, token_matrix, word_view
from models.core.dataset import Dataset
from models.core.inputs import TextSpec
from models.core.method import MethodError
from models.core.run import LocalRun

DOCSTRINGS = Path(__file__).parents[2] / "data" / "docstrings-300.jsonl"
CONFIG = Config(epochs=3, batch_size=64, feat_dim=16, word_features=32, word_buckets=4096)


@pytest.fixture(scope="module")
def docstrings():
    lines = [json.loads(line) for line in DOCSTRINGS.read_text().splitlines()]
    names = sorted({line["label"] for line in lines})
    labels = np.array([names.index(line["label"]) for line in lines], dtype=np.int64)
    return Dataset("text", [line["text"] for line in lines], labels, names, name="docstrings")


@pytest.fixture(scope="module")
def trained(docstrings, tmp_path_factory):
    from models.core.registry import Registry

    return Registry()["align-uniform"].method.train(docstrings, CONFIG, LocalRun(tmp_path_factory.mktemp("text")))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_words_become_buckets_whatever_their_case_and_punctuation():
    tokens = token_matrix(["Fast, small!", "fast small", "small fast fast", "?!", ""], 4096, 8)
    assert tokens.dtype == torch.int32 and tokens.shape == (5, 3)
    assert torch.equal(tokens[0], tokens[1])
    assert tokens[2].tolist() == [tokens[0, 1], tokens[0, 0], tokens[0, 0]]
    assert tokens[3].tolist() == tokens[4].tolist() == [NO_WORD, PAD, PAD]
    assert token_matrix(["one two three four"], 4096, 2).shape == (1, 2)


def test_a_view_is_a_run_of_words_of_at_least_the_asked_share():
    tokens = token_matrix([" ".join(f"w{i}" for i in range(20))] * 200, 1 << 20, 32)
    view = word_view(tokens, 0.5, 0.0, generator())
    kept = view != 0
    counts = kept.sum(dim=1)
    assert counts.min() >= 10 and counts.max() <= 20 and len(counts.unique()) > 5
    first, last = kept.int().argmax(dim=1), 20 - kept.flip(1).int().argmax(dim=1)
    assert torch.equal(last - first, counts), "words between the ends are kept"
    assert len(first.unique()) > 3
    assert torch.equal(view[kept], tokens[kept])


def test_dropout_takes_words_but_never_all():
    tokens = token_matrix(["a b c d e f g h"] * 500 + ["alone"] * 500, 4096, 8)
    view = word_view(tokens, 1.0, 0.5, generator())
    assert float((view[:500] != 0).float().mean()) == pytest.approx(0.5, abs=0.05)
    assert ((view != 0).sum(dim=1) >= 1).all()


def test_the_encoder_sees_neither_order_nor_padding():
    encoder = BagOfWords(4096, 16).eval()
    alone = encoder(token_matrix(["red green blue"], 4096, 8))
    among = encoder(token_matrix(["blue red green", "a much longer text with several words"], 4096, 8))
    torch.testing.assert_close(alone[0], among[0])
    assert alone.norm(dim=1).item() == pytest.approx(1, abs=1e-6)


def test_it_starts_from_latent_semantic_analysis():
    """Words that share contexts, never a text, come close; in random vectors they do not."""
    buckets = 1 << 18  # so many that none of these words share one
    texts = ["cat purrs softly", "kitten purrs softly", "stock market falls", "share market falls"] * 20
    encoder = BagOfWords(buckets, 2)
    encoder.start_from(token_matrix(texts, buckets, 8), seed=0)
    cat, kitten, stock = encoder(token_matrix(["cat", "kitten", "stock"], buckets, 8))
    assert cat @ kitten > 0.99 > 0.1 > abs(cat @ stock)
    weights = encoder.log_weights(token_matrix(["purrs cat"], buckets, 8))[0, :, 0].exp()
    assert weights[0].item() == pytest.approx(np.log(81 / 41) + 1, rel=1e-5)
    assert weights[1].item() == pytest.approx(np.log(81 / 21) + 1, rel=1e-5)


def test_a_version_of_texts_is_trained_saved_and_served(entry, docstrings, trained):
    assert isinstance(trained.config.input, TextSpec)
    assert trained.config.outputs["dimensions_by_space"] == {"penultimate": 32, "projection": 16}
    model = entry.method.load(trained, torch.device("cpu"))
    texts = docstrings.texts()[:300]
    for space, size in trained.config.outputs["dimensions_by_space"].items():
        vectors = np.asarray(model.predict(texts, entry.params(space=space)))
        assert vectors.shape == (300, size) and vectors.dtype == np.float32
        assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-5)
        alone = np.asarray(model.predict(texts[5:6], entry.params(space=space)))
        assert alone[0] == pytest.approx(vectors[5], abs=1e-5)
    short = np.asarray(model.predict(["", "zzz", "sort an array"], entry.params(dimensions=4)))
    assert short.shape == (3, 4) and np.isfinite(short).all()


def test_training_lowers_the_loss_on_held_out_texts(entry, docstrings, tmp_path):
    run = LocalRun(tmp_path, seed=2)
    entry.method.train(docstrings, CONFIG.model_copy(update={"epochs": 20}), run)
    losses = [
        align + uniform
        for (_, align), (_, uniform) in zip(run.metrics["held_out_align"], run.metrics["held_out_uniform"], strict=True)
    ]
    assert losses[-1] < losses[0] - 0.2


def test_the_same_seed_gives_the_same_version(entry, docstrings, trained, tmp_path):
    again = entry.method.train(docstrings, CONFIG, LocalRun(tmp_path))
    assert again.config.weights_sha256 == trained.config.weights_sha256


def test_a_version_of_texts_is_measured_on_texts(entry, docstrings, fashion, trained, tmp_path):
    figures = entry.method.evaluate(trained, LocalRun(tmp_path), docstrings).figures
    found = {figure.name for figure in figures}
    assert {"L_align", "L_uniform", "k-NN accuracy (k=20, leave one out)"} <= found
    with pytest.raises(MethodError, match="16 text are needed, this one holds 600 images"):
        entry.method.evaluate(trained, LocalRun(tmp_path), fashion)


def test_the_proof_of_texts_on_a_slice(docstrings, trained, tmp_path):
    run = LocalRun(tmp_path)
    order = np.random.default_rng(0).permutation(len(docstrings))
    parts = docstrings.select(order[:220]), docstrings.select(order[220:])
    figures = measure_texts(trained, run, *parts, seeds=1)
    rows = {row["group"]: row for row in figures.tables["encoders"]}
    assert rows.keys() == {SHIPPED, SPARSE, START, RANDOM, METHOD, CONTRASTIVE}
    assert rows[METHOD]["uniform"] < -1 and rows[SPARSE]["align"] is None
    assert rows[METHOD]["steps"] == 3 * (220 // CONFIG.batch_size)
    assert min(row["linear"] for row in rows.values()) > 1.5 / len(docstrings.class_names)
    assert len(figures.claims) == 5
    assert (tmp_path / "align-uniform-text.png").read_bytes().startswith(b"\x89PNG")
    assert run.load_state()[1]["rows"][0]["name"] == SHIPPED, "a proof that is stopped goes on"


@pytest.mark.parametrize(
    ("texts", "message"), [(["a b"] * 10, "at least 64 texts"), (["?!"] * 80, "no text has a word")]
)
def test_texts_that_cannot_be_learned_from(entry, tmp_path, texts, message):
    with pytest.raises(MethodError, match=message):
        entry.method.train(Dataset("text", texts), CONFIG, LocalRun(tmp_path))
