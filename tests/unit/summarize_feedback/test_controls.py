"""Controls and baselines: what is left for feedback, length held fixed, DPO and expert iteration."""

import numpy as np
import pytest
import torch

from models.summarize_feedback.baselines import dpo_loss, tune_on_comparisons
from models.summarize_feedback.comparisons import encode_preferences, simulate
from models.summarize_feedback.examples import left_for_feedback
from models.summarize_feedback.judges import agreement_rows, noiseless
from models.summarize_feedback.length_control import TOLERANCES, length_rows, rate_at_equal_length
from models.summarize_feedback.scorer import token_log_probs


def test_variants_of_a_text_stay_on_one_side():
    texts = [f"Library number {i} reads files" + end for i in range(200) for end in ("", " - development files", ".")]
    left = left_for_feedback(texts, 0.3).reshape(200, 3)
    assert (left.all(axis=1) | (~left).all(axis=1)).all()
    assert left.mean() == pytest.approx(0.3, abs=0.01)
    assert not left_for_feedback(texts, 0).any()


def test_what_is_left_does_not_depend_on_the_order():
    texts = [f"text {i} of many" for i in range(50)]
    assert (left_for_feedback(texts, 0.4) == left_for_feedback(texts[::-1], 0.4)[::-1]).all()


def test_dpo_loss():
    policy, reference = torch.tensor([[-3.0, -5.0]]), torch.tensor([[-4.0, -4.0]])
    assert dpo_loss(policy, reference, 0.5).item() == pytest.approx(0.3132617, abs=1e-6)  # margin .5 (1 + 1)
    assert dpo_loss(reference, reference, 0.5).item() == pytest.approx(0.6931472, abs=1e-6)


def test_win_rate_at_equal_length_is_what_generated_the_wins():
    generator = np.random.default_rng(0)
    ratio = generator.normal(0.4, 0.5, 40_000)  # ours are longer, and longer ones win
    wins = (generator.random(40_000) < 1 / (1 + np.exp(-(0.3 + 1.5 * ratio)))).astype(float)
    assert wins.mean() > 0.66
    assert rate_at_equal_length(wins, ratio) == pytest.approx(1 / (1 + np.exp(-0.3)), abs=0.01)


def test_separable_wins_stay_finite():
    assert rate_at_equal_length(np.ones(20), np.zeros(20)) > 0.95


def test_length_rows_count_the_texts_within_each_tolerance(pairs):
    base = [reference for _, reference in pairs.inputs]
    (row,) = length_rows(pairs.inputs, {"itself": base}, base)
    assert row["any length"] == row["at equal length"] == 0.5
    assert {row[f"texts within {tolerance}"] for tolerance in TOLERANCES} == {len(pairs)}
    longer = [f"{reference} and two" for reference in base]
    (row,) = length_rows(pairs.inputs, {"longer": longer}, base)
    assert row["within 1"] is None
    assert row["texts within 2"] == len(pairs)
    assert row["within 2"] == row["any length"] < 0.5


def test_baselines_raise_what_was_preferred(bundle, pairs):
    made, _ = simulate(bundle, pairs.inputs, count=160, seed=1)
    sources, summaries = encode_preferences(bundle.tokenizer, made, bundle.shape)

    def likelihoods(policy):
        with torch.no_grad():
            found = token_log_probs(bundle.encoder, policy, bundle.encoder(sources), summaries)
        return found.sum(dim=2)

    before = likelihoods(bundle.sft)
    how = {"learning_rate": 1e-3, "batch_size": 32, "seed": 0}
    gained = likelihoods(tune_on_comparisons(bundle.encoder, bundle.sft, sources, summaries, "dpo", beta=0.3, **how))
    assert (gained - before)[:, 0].mean() > (gained - before)[:, 1].mean() + 0.3
    gained = likelihoods(
        tune_on_comparisons(bundle.encoder, bundle.sft, sources, summaries, "preferred", beta=0, **how)
    )
    assert gained[:, 0].mean() > before[:, 0].mean()
    assert torch.equal(likelihoods(bundle.sft), before)


def test_more_comparisons_than_two_a_text_are_all_different(bundle, pairs):
    made, _ = simulate(bundle, pairs.inputs[:20], count=200, seed=1)
    assert 100 < len(made) <= 200
    found = [(text, frozenset(candidates)) for text, candidates in zip(made.texts, made.candidates, strict=True)]
    assert len(set(found)) == len(found)


def test_every_judge_is_compared_on_the_same_pairs(bundle, pairs):
    made = noiseless(bundle, pairs.inputs[:40], 80, 0)
    rows = agreement_rows(bundle, made)
    assert rows[0]["judge"] == "reward model"
    assert {row["comparisons"] for row in rows} == {len(made)}
    by_name = {row["judge"]: row["all pairs"] for row in rows}
    assert by_name["longer"] + by_name["shorter"] == pytest.approx(1)
