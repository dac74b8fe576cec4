"""The GPU gives what the CPU gives, and the stages train and resume on it."""

import pytest
import torch

from models.core.run import LocalRun
from models.summarize_feedback import train
from models.summarize_feedback.baselines import tune_on_comparisons
from models.summarize_feedback.bundle import read_bundle
from models.summarize_feedback.candidates import summarise
from models.summarize_feedback.comparisons import encode_preferences, simulate
from models.summarize_feedback.evaluate import evaluate_method
from models.summarize_feedback.reward import rewards_of
from models.summarize_feedback.schema import Config, Params, PolicyOptions
from tests.unit.cuda import needs_cuda

pytestmark = needs_cuda


@pytest.fixture
def both(trained):
    return read_bundle(trained["ppo"]), read_bundle(trained["ppo"]).to(torch.device("cuda"))


def test_greedy_summaries_and_their_numbers(both, pairs):
    texts = [text for text, _ in pairs.inputs[:24]]
    here, there = (summarise(bundle, texts, Params(temperature=0)) for bundle in both)
    for a, b in zip(here, there, strict=True):
        assert a.candidates[0].text == b.candidates[0].text
        assert a.candidates[0].logprob == pytest.approx(b.candidates[0].logprob, abs=1e-2)
        assert a.candidates[0].reward == pytest.approx(b.candidates[0].reward, abs=1e-3)


def test_drawn_summaries_are_nearly_all_the_same(both, pairs):
    """A draw differs only where its uniform falls within rounding of the border between two tokens."""
    texts = [text for text, _ in pairs.inputs[:24]]
    here, there = (summarise(bundle, texts, Params(n=8, best_of=8)) for bundle in both)
    same = [{c.text for c in a.candidates} == {c.text for c in b.candidates} for a, b in zip(here, there, strict=True)]
    assert sum(same) >= 22


def test_rewards(both, pairs):
    made, _ = simulate(both[0], pairs.inputs, count=100, seed=0)
    coded = encode_preferences(both[0].tokenizer, made, both[0].shape)
    here, there = (rewards_of(b.encoder, b.sft, b.reward, *coded) for b in both)
    assert torch.allclose(here, there, atol=1e-3)


@pytest.mark.parametrize("stage", ["sft", "reward", "ppo"])
def test_a_stage_trains(stage, trained, pairs, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "WEIGHTS", trained["reward"].folder)
    config = Config.model_validate(trained[stage].config.config)
    checkpoint = train.train_stage(pairs, config, LocalRun(tmp_path, seed=1, device="cuda"))
    assert checkpoint.figures.figures[0].value == pytest.approx(trained[stage].figures.figures[0].value, rel=0.5, abs=1)


def test_a_stopped_training_goes_on(trained, pairs, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "WEIGHTS", trained["reward"].folder)
    config = Config(stage="ppo", ppo=PolicyOptions(iterations=25, batch_size=8, max_tokens=4))
    train.train_stage(pairs, config, LocalRun(tmp_path, device="cuda"))
    again = config.model_copy(update={"ppo": config.ppo.model_copy(update={"iterations": 27})})
    run = LocalRun(tmp_path, device="cuda")
    train.train_stage(pairs, again, run)
    assert [step for step, _ in run.metrics["reward"]] == [26, 27]


def test_baselines_and_evaluation(both, trained, pairs, tmp_path):
    made, _ = simulate(both[1], pairs.inputs, count=64, seed=0)
    coded = encode_preferences(both[1].tokenizer, made, both[1].shape)
    how = {"beta": 0.1, "learning_rate": 1e-3, "batch_size": 32, "seed": 0}
    policy = tune_on_comparisons(both[1].encoder, both[1].sft, *coded, "dpo", **how)
    assert next(policy.parameters()).is_cuda
    found = evaluate_method(trained["ppo"], LocalRun(tmp_path, device="cuda"), pairs.select(range(24)))
    assert len(found.tables["reward model"]) == 6
