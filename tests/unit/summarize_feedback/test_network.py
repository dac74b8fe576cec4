"""What must not change the outcome: padding, the batch, tokens after the end, whether keys are kept."""

import pytest
import torch

from models.summarize_feedback.candidates import sequence_log_probs
from models.summarize_feedback.decoding import draw, pick, uniforms
from models.summarize_feedback.examples import encode_sources, pad, shift_right
from models.summarize_feedback.network import lengths
from models.summarize_feedback.tokenizer import BOS, EOS, PAD, SEP, encode_summary

pytestmark = pytest.mark.usefixtures("no_gradients")


@pytest.fixture
def no_gradients():
    with torch.no_grad():
        yield


@pytest.fixture
def texts(pairs):
    return [text for text, _ in pairs.inputs[:6]]


def encoded_of(bundle, texts):
    return bundle.encoder(encode_sources(bundle.tokenizer, texts, bundle.shape)[0])


def summaries_of(bundle, pairs, count=6):
    rows = [
        encode_summary(bundle.tokenizer, summary, bundle.shape.summary_tokens) for _, summary in pairs.inputs[:count]
    ]
    return pad(rows)[:, None]


def test_reward_ignores_padding_batch_and_what_follows_the_end(bundle, texts, pairs):
    summaries = summaries_of(bundle, pairs)[..., :-2]
    summaries[:, :, -1] = torch.where(lengths(summaries) == summaries.shape[2], EOS, summaries[:, :, -1])

    def rewards(texts, summaries):
        return bundle.reward(bundle.encoder, bundle.sft, encoded_of(bundle, texts), summaries)

    together = rewards(texts, summaries)
    for row, text in enumerate(texts):
        alone = rewards([text], summaries[row : row + 1])
        assert alone.item() == pytest.approx(together[row].item(), abs=1e-5)
    longer = torch.cat([summaries, torch.full((6, 1, 2), PAD)], dim=2)
    assert torch.allclose(rewards(texts, longer), together, atol=1e-5)
    ends = (lengths(summaries) - 1)[..., None] < torch.arange(summaries.shape[2])
    noisy = summaries.masked_fill(ends, 300)
    assert torch.allclose(rewards(texts, noisy), together, atol=1e-5)


def test_next_token_probabilities_sum_to_one_and_exclude_specials(bundle, texts, pairs):
    summaries = summaries_of(bundle, pairs)
    rows = torch.ones(summaries.shape, dtype=torch.bool)
    found = bundle.sft(bundle.encoder, encoded_of(bundle, texts), shift_right(summaries), rows).exp()
    assert torch.allclose(found.sum(dim=1), torch.ones(len(found)), atol=1e-5)
    assert (found[:, [PAD, BOS, SEP]] == 0).all()


def test_decoding_with_kept_keys_equals_teacher_forcing(bundle, texts):
    encoded = encoded_of(bundle, texts)
    drawn = draw(bundle.encoder, bundle.sft, encoded, uniforms(3, texts, 5), temperature=0.9, max_tokens=20)
    again = sequence_log_probs(bundle, bundle.sft, encoded, drawn.tokens)
    assert torch.allclose(drawn.log_probs, again, atol=1e-3)


def test_greedy_takes_the_likeliest_token_at_each_step(bundle, texts):
    encoded = encoded_of(bundle, texts)
    drawn = draw(bundle.encoder, bundle.sft, encoded, torch.zeros(6, 1, 12), temperature=0, max_tokens=12)
    rows = drawn.tokens != PAD
    found = bundle.sft(bundle.encoder, encoded, shift_right(drawn.tokens), rows)
    assert torch.equal(found.argmax(dim=1), drawn.tokens[rows])


def test_a_seed_gives_the_same_summaries_in_any_batch(bundle, texts):
    together = draw(
        bundle.encoder, bundle.ppo, encoded_of(bundle, texts), uniforms(7, texts, 4), temperature=0.8, max_tokens=16
    )
    for row, text in enumerate(texts):
        alone = draw(
            bundle.encoder,
            bundle.ppo,
            encoded_of(bundle, [text]),
            uniforms(7, [text], 2),
            temperature=0.8,
            max_tokens=16,
        )
        width = alone.tokens.shape[2]
        assert torch.equal(alone.tokens[0], together.tokens[row, :2, :width])
        assert (together.tokens[row, :2, width:] == PAD).all()


def test_samples_follow_the_distribution(bundle, texts):
    """First tokens of 4,000 draws against the policy's probabilities: total variation below 4%."""
    encoded = encoded_of(bundle, texts[:1])
    drawn = draw(bundle.encoder, bundle.sft, encoded, uniforms(1, texts[:1], 4000), temperature=0.5, max_tokens=1)
    rows = torch.ones(1, 1, 1, dtype=torch.bool)
    log_probs = bundle.sft(bundle.encoder, encoded, torch.full((1, 1, 1), BOS), rows)[0]
    expected = (log_probs / 0.5).softmax(dim=0)
    counted = torch.bincount(drawn.tokens.flatten(), minlength=len(expected)) / 4000
    likely = expected > 0.01
    assert (counted - expected)[likely].abs().max() < 0.04


def test_inversion_takes_each_token_on_its_share_and_none_without_one():
    probabilities = torch.tensor([0.0, 0.25, 0.0, 0.75, 0.0])
    uniform = torch.tensor([0.0, 0.2499, 0.25, 0.9999, 1 - 2**-53], dtype=torch.float64)
    assert pick(probabilities.expand(5, -1), uniform).tolist() == [1, 1, 3, 3, 3]
    unnormalised = 3 * probabilities  # what top_p leaves
    assert pick(unnormalised.expand(5, -1), uniform).tolist() == [1, 1, 3, 3, 3]


def test_lengths_end_with_the_first_end():
    tokens = torch.tensor([[5, 6, EOS, PAD], [5, EOS, EOS, 7], [5, 6, 7, 8], [5, 6, PAD, PAD]])
    assert lengths(tokens).tolist() == [3, 2, 4, 2]
