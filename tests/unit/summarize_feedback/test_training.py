"""The three stages: what they learn, what they leave alone, and that they resume bit for bit."""

import numpy as np
import pytest
import torch

from models.core.feedback import Comparison
from models.core.method import MethodError
from models.core.run import Cancelled, LocalRun
from models.summarize_feedback import train
from models.summarize_feedback.bundle import read_bundle
from models.summarize_feedback.comparisons import encode_preferences, simulate, stored_preferences
from models.summarize_feedback.examples import encode_pairs, encode_sources, pad
from models.summarize_feedback.ppo import Trainer, train_ppo
from models.summarize_feedback.reward import _Comparisons, rewards_of, train_reward
from models.summarize_feedback.schema import Config, PolicyOptions, RewardOptions, SupervisedOptions
from models.summarize_feedback.tokenizer import encode_summary


def silent(fraction, text):
    pass


class Stopped(LocalRun):
    """A run whose process ends after so many resume points."""

    def __init__(self, folder, points, **options):
        super().__init__(folder, **options)
        self.points = points

    def save_state(self, tensors, meta):
        super().save_state(tensors, meta)
        self.points -= 1
        if self.points == 0:
            raise Cancelled


def test_supervised_training_learns(trained):
    assert trained["sft"].figures.figures[0].value < 400  # of 512 tokens; a network that learnt nothing has more


def test_reward_model_learns_a_separable_preference(bundle, pairs, tmp_path):
    """Summaries of one word against the reference: more than 90% right on texts not trained on."""
    texts = [text for text, _ in pairs.inputs]
    sources, _ = encode_sources(bundle.tokenizer, texts, bundle.shape)
    flat = [
        encode_summary(bundle.tokenizer, summary, 32)
        for _, reference in pairs.inputs
        for summary in (reference, reference.split()[0])
    ]
    summaries = pad(flat).view(len(texts), 2, -1)
    options = RewardOptions(epochs=8, batch_size=32, learning_rate=2e-3)
    scorer = train_reward(
        bundle.encoder, bundle.sft, bundle.shape, sources[:220], summaries[:220], options, LocalRun(tmp_path), silent
    )
    rewards = rewards_of(bundle.encoder, bundle.sft, scorer, sources[220:], summaries[220:])
    assert (rewards[:, 0] > rewards[:, 1]).float().mean() > 0.9


def test_rewards_of_references_average_to_zero(trained, pairs):
    bundle = read_bundle(trained["reward"])
    examples = encode_pairs(bundle.tokenizer, pairs.inputs, bundle.shape)
    rewards = rewards_of(bundle.encoder, bundle.sft, bundle.reward, examples.sources, examples.summaries[:, None])
    assert rewards.mean().item() == pytest.approx(0, abs=5e-3)  # half precision in the checkpoint


def test_stages_after_the_first_take_the_texts_that_it_left(pairs):
    config = Config(feedback_share=0.3)
    left = train.feedback_pairs(pairs.inputs, config)
    assert 0.3 * len(pairs) <= len(left) < 0.35 * len(pairs)
    assert train.feedback_pairs(pairs.inputs, Config()) == pairs.inputs
    with pytest.raises(MethodError, match="feedback_share: it leaves fewer than two texts"):
        train.feedback_pairs(pairs.inputs[:2], config)


def test_comparisons_of_one_text_are_judged_as_they_are_alone(bundle, pairs):
    made, _ = simulate(bundle, pairs.inputs[:12], count=70, seed=3)
    coded = encode_preferences(bundle.tokenizer, made, bundle.shape)
    comparisons = _Comparisons(*coded, "cpu")
    comparisons.find_likelihoods(bundle.encoder, bundle.sft)
    alone = rewards_of(bundle.encoder, bundle.sft, bundle.reward, *coded)
    found = []
    for chosen in comparisons.batches(16, np.random.default_rng(0)):
        texts, written, likelihoods, valid = comparisons.batch(chosen)
        with torch.no_grad():
            rewards = bundle.reward.judge(bundle.encoder, bundle.encoder(texts), written, likelihoods)
        found.append(rewards.view(*valid.shape, 2)[valid])
    found = torch.cat(found)
    assert len(found) > 40
    distance = (found[:, None] - alone).abs().sum(dim=2).min(dim=1).values
    assert distance.max() < 1e-4


def test_first_rollout_has_no_divergence_and_the_first_minibatch_a_ratio_of_one(bundle, pairs):
    sources, _ = encode_sources(bundle.tokenizer, [text for text, _ in pairs.inputs[:32]], bundle.shape)
    trainer = Trainer(bundle.encoder, bundle.sft, bundle.reward, PolicyOptions(batch_size=32), seed=0)
    rollout = trainer.rollout(sources)
    assert (rollout.log_ratio == 0).all()
    assert (rollout.tokens[~rollout.mask] == 0).all()
    facts = trainer.update(rollout)
    assert facts["first_ratio_error"] < 1e-4
    assert (trainer.rollout(sources).log_ratio != 0).any()


def test_a_summary_without_an_end_gets_the_fixed_reward(bundle, pairs):
    sources, _ = encode_sources(bundle.tokenizer, [text for text, _ in pairs.inputs[:32]], bundle.shape)
    options = PolicyOptions(batch_size=32, max_tokens=4, missing_eos_reward=-3)
    rollout = Trainer(bundle.encoder, bundle.sft, bundle.reward, options, seed=0).rollout(sources)
    ended = (rollout.tokens == 2).any(dim=1)
    assert not ended.all()
    assert (rollout.scores[~ended] == -3).all()


def test_ppo_raises_the_reward_and_leaves_the_rest_alone(bundle, pairs, tmp_path):
    sources, _ = encode_sources(bundle.tokenizer, [text for text, _ in pairs.inputs[:64]], bundle.shape)
    before = {
        name: t.clone() for m in (bundle.encoder, bundle.sft, bundle.reward) for name, t in m.state_dict().items()
    }
    options = PolicyOptions(beta=0, iterations=20, batch_size=64, learning_rate=1e-3, max_tokens=12)
    _, history = train_ppo(
        bundle.encoder, bundle.sft, bundle.reward, sources, options, LocalRun(tmp_path, seed=1), silent
    )
    rewards = [facts["reward"] for facts in history]
    assert np.mean(rewards[-5:]) > np.mean(rewards[:5]) + 0.05
    after = {name: t for m in (bundle.encoder, bundle.sft, bundle.reward) for name, t in m.state_dict().items()}
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_ppo_resumes_bit_for_bit(bundle, pairs, tmp_path):
    sources, _ = encode_sources(bundle.tokenizer, [text for text, _ in pairs.inputs[:32]], bundle.shape)
    options = PolicyOptions(iterations=27, batch_size=8, max_tokens=4, epochs=1, minibatches=1)
    whole, _ = train_ppo(
        bundle.encoder, bundle.sft, bundle.reward, sources, options, LocalRun(tmp_path / "a", seed=2), silent
    )
    with pytest.raises(Cancelled):
        train_ppo(
            bundle.encoder, bundle.sft, bundle.reward, sources, options, Stopped(tmp_path / "b", 1, seed=2), silent
        )
    resumed, history = train_ppo(
        bundle.encoder, bundle.sft, bundle.reward, sources, options, LocalRun(tmp_path / "b", seed=2), silent
    )
    assert len(history) == 2
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_supervised_training_resumes_bit_for_bit(trained, pairs, tmp_path):
    config = Config.model_validate(trained["sft"].config.config)
    config = config.model_copy(update={"sft": SupervisedOptions(max_steps=255, batch_size=4)})
    whole = train.train_stage(pairs, config, LocalRun(tmp_path / "a", seed=2))
    with pytest.raises(Cancelled):
        train.train_stage(pairs, config, Stopped(tmp_path / "b", 1, seed=2))
    resumed = train.train_stage(pairs, config, LocalRun(tmp_path / "b", seed=2))
    assert resumed.config.weights_sha256 == whole.config.weights_sha256


def stored(text, preferred=0):
    return Comparison(input=text, candidates=("short", "a much longer summary of it"), preferred=preferred)


class WithPeople(LocalRun):
    people: list[Comparison] = []  # noqa: RUF012 - set by each test on its own instance

    def comparisons(self):
        return self.people


def test_stored_comparisons_are_learnt_from_and_named(trained, pairs, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "WEIGHTS", trained["sft"].folder)
    run = WithPeople(tmp_path / "human")
    run.people = [stored(text) for text, _ in pairs.inputs[:60]]
    options = RewardOptions(comparisons="human", min_human=50, epochs=6, batch_size=16, learning_rate=2e-3)
    checkpoint = train.train_stage(pairs, Config(stage="reward", reward=options), run)
    assert checkpoint.config.outputs["preference_source"] == "human"
    assert checkpoint.figures.figures[0].value > 0.9
    run = WithPeople(tmp_path / "mixed")
    run.people = [stored(text) for text, _ in pairs.inputs[:60]]
    checkpoint = train.train_stage(pairs, Config(stage="reward", reward=RewardOptions(simulated=64)), run)
    assert checkpoint.config.outputs["preference_source"] == "mixed"


def test_too_few_people_are_an_error_that_says_how_many(trained, pairs, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "WEIGHTS", trained["sft"].folder)
    with pytest.raises(MethodError, match=r"reward/comparisons: 0 comparisons of people are stored, `human` needs 200"):
        train.train_stage(pairs, Config(stage="reward", reward=RewardOptions(comparisons="human")), LocalRun(tmp_path))


def test_ppo_needs_a_reward_model(trained, pairs, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "WEIGHTS", trained["sft"].folder)
    with pytest.raises(MethodError, match="base: it has no reward model"):
        train.train_stage(pairs, Config(stage="ppo"), LocalRun(tmp_path))


def test_comparisons_that_compare_nothing_are_left_out():
    same = Comparison(input="text", candidates=("same", "same"), preferred=0)
    empty = Comparison(input=" ", candidates=("a", "b"), preferred=1)
    assert len(stored_preferences([same, empty, stored("text", 1)])) == 1


def test_training_and_held_out_comparisons_share_no_text(bundle, pairs):
    made, tau = simulate(bundle, pairs.inputs, count=200, seed=3)
    assert tau > 0
    assert set(made.preferred.tolist()) == {0, 1}
    training, held = train.split_by_text(made, 0.2, seed=0)
    assert len(training) + len(held) == len(made)
    assert not set(training.texts) & set(held.texts)


def test_pairs_with_an_empty_side_name_the_sample(tmp_path):
    from models.core.dataset import Dataset

    data = Dataset("pairs", [("a text", "summary"), ("another", "  ")])
    with pytest.raises(MethodError, match="sample 1 is empty"):
        train.train_stage(data, Config(), LocalRun(tmp_path))
    with pytest.raises(MethodError, match="it holds text, not pairs"):
        train.train_stage(Dataset("text", ["a"]), Config(), LocalRun(tmp_path))
