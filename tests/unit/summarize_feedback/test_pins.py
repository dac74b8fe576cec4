"""The formulas against values worked out by hand."""

import math

import numpy as np
import pytest
import torch

from models.summarize_feedback.best_of_n import expected_best, kl_bound, kl_exact
from models.summarize_feedback.decoding import next_token_distribution
from models.summarize_feedback.labeller import gold, label, temperature_for
from models.summarize_feedback.network import mix_copy
from models.summarize_feedback.ppo_math import (
    generalised_advantages,
    kl_estimates,
    policy_loss,
    token_rewards,
    value_loss,
    whiten,
)
from models.summarize_feedback.reward import comparison_loss
from models.summarize_feedback.rouge import rouge_l, rouge_n, words


def rows(*values):
    return torch.tensor([values], dtype=torch.float64)


@pytest.mark.parametrize(("difference", "loss"), [(1, 0.3132617), (0, 0.6931472), (-2, 2.1269280)])
def test_reward_loss(difference, loss):
    other = torch.tensor([3.5], dtype=torch.float64)
    assert comparison_loss(other + difference, other).item() == pytest.approx(loss, abs=1e-7)
    assert comparison_loss(other + difference + 9, other + 9).item() == pytest.approx(loss, abs=1e-7)


def test_gradient_of_the_reward_loss():
    preferred = torch.tensor([1.0], dtype=torch.float64, requires_grad=True)
    comparison_loss(preferred, torch.zeros(1, dtype=torch.float64)).backward()
    assert preferred.grad.item() == pytest.approx(-0.2689414, abs=1e-7)


def test_the_score_is_added_at_the_last_valid_token_and_the_penalty_at_each():
    ratio, mask = rows(0.2, -0.5, 0.2, 9.0), torch.tensor([[True, True, True, False]])
    rewards = token_rewards(ratio, torch.tensor([1.5], dtype=torch.float64), mask, 0.05)
    assert rewards[0].tolist() == pytest.approx([-0.01, 0.025, 1.49, 0])
    assert rewards.sum().item() == pytest.approx(1.505)


@pytest.mark.parametrize(
    ("lam", "advantages", "returns"),
    [
        (0.95, (0.6753425, 0.61615, 0.417, 0.26), (0.8753425, 0.91615, 0.917, 0.96)),
        (1.0, (0.74, 0.65, 0.43, 0.26), (0.94, 0.95, 0.93, 0.96)),
    ],
)
def test_generalised_advantages(lam, advantages, returns):
    rewards, values = rows(-0.01, 0.02, -0.03, 0.96, 0.0), rows(0.2, 0.3, 0.5, 0.7, 8.0)
    mask = torch.tensor([[True] * 4 + [False]])
    found, back = generalised_advantages(rewards, values, mask, lam)
    assert found[0].tolist() == pytest.approx([*advantages, 0])
    assert back[0].tolist() == pytest.approx([*returns, 0])


def test_whitening_leaves_out_the_padding():
    values, mask = rows(0.6753425, 0.61615, 0.417, 0.26, 1e6), torch.tensor([[True] * 4 + [False]])
    assert whiten(values, mask)[0].tolist() == pytest.approx([1.112585, 0.753143, -0.456179, -1.409549, 0], abs=1e-6)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "flat"),
    [(1.5, 1, -1.2, True), (1.5, -1, 1.5, False), (0.5, 1, -0.5, False), (0.5, -1, 0.8, True)],
)
def test_clipped_policy_loss(ratio, advantage, loss, flat):
    x = torch.tensor(ratio, dtype=torch.float64, requires_grad=True)
    found = policy_loss(x, torch.tensor(advantage, dtype=torch.float64), 0.2)
    found.backward()
    assert found.item() == pytest.approx(loss)
    assert (x.grad.item() == 0) is flat


def test_clipped_value_loss():
    one, old, target = (torch.tensor(v, dtype=torch.float64) for v in (1.0, 0.5, 2.0))
    assert value_loss(one, old, target, 0.2).item() == pytest.approx(0.845)
    assert value_loss(one, old, target, 9.0).item() == pytest.approx(0.5)


def test_expected_best_of_n():
    samples = np.array([[3.0, 1.0, 4.0, 2.0]])
    assert expected_best(samples, samples, 2)[0] == pytest.approx(10 / 3)
    assert expected_best(samples, samples, 1)[0] == pytest.approx(2.5)
    assert expected_best(samples, samples, 4)[0] == 4
    with pytest.raises(ValueError, match=r"must be in 1\.\.4"):
        expected_best(samples, samples, 5)


def test_expected_best_is_unbiased():
    generator = np.random.default_rng(0)
    scores = generator.normal(size=(20_000, 8))
    brute = scores[:, :3].max(axis=1).mean()
    assert expected_best(scores, scores, 3).mean() == pytest.approx(brute, abs=0.02)


@pytest.mark.parametrize(("n", "bound"), [(2, 0.193147), (4, 0.636294), (16, 1.835089), (64, 3.174508)])
def test_divergence_of_best_of_n(n, bound):
    assert kl_bound(n) == pytest.approx(bound, abs=1e-6)
    assert kl_exact([0.2] * 5, n) <= bound


def test_exact_divergence_of_best_of_four_of_five():
    assert kl_exact([0.2] * 5, 4) == pytest.approx(0.606690, abs=1e-6)


def test_divergence_estimates():
    p, q = rows(0.7, 0.2, 0.1)[0], rows(0.5, 0.3, 0.2)[0]
    k1, k2, k3 = kl_estimates((p / q).log())
    expected = [0.0851228, 0.0800876, 0.0851228]
    assert [(p * k).sum().item() for k in (k1, k2, k3)] == pytest.approx(expected, abs=1e-7)
    assert k3.tolist() == pytest.approx([0.050758, 0.094535, 0.306853], abs=1e-6)


def test_rouge():
    a, b = words("a fast text editor"), words("small and fast editor for text")
    assert (rouge_n(a, b, 1), rouge_n(a, b, 2), rouge_l(a, b)) == pytest.approx((0.6, 0, 0.4))
    assert rouge_n(a, a, 2) == rouge_l(b, b) == 1
    assert rouge_n([], b, 1) == rouge_l(a, []) == 0


def test_copy_mixture():
    found = mix_copy(rows(0.6, 0.3, 0.1), rows(0.5, 0.5), torch.tensor([[0.8]]).double(), torch.tensor([[1, 2]]))
    assert found[0].tolist() == pytest.approx([0.48, 0.34, 0.18])
    twice = mix_copy(rows(0.6, 0.3, 0.1), rows(0.5, 0.5), torch.tensor([[0.8]]).double(), torch.tensor([[1, 1]]))
    assert twice[0].tolist() == pytest.approx([0.48, 0.44, 0.08])


def test_temperature():
    found = next_token_distribution(rows(2.0, 1.0, 0.0).log_softmax(dim=1), 0.7, 1.0)
    assert found[0].tolist() == pytest.approx([0.770960, 0.184761, 0.044278], abs=1e-6)


def test_nucleus_keeps_the_likeliest_tokens_that_reach_the_share():
    log_probs = rows(0.1, 0.5, 0.4).log()
    assert (next_token_distribution(log_probs, 1.0, 0.5)[0] > 0).tolist() == [False, True, False]
    assert (next_token_distribution(log_probs, 1.0, 0.6)[0] > 0).tolist() == [False, True, True]


@pytest.mark.parametrize(
    ("beta", "expected", "objective", "divergence"),
    [
        (1.0, (0.784399, 0.173139, 0.042463), 0.549691, 0.192245),
        (0.5, (0.918672, 0.074597, 0.006730), 0.695839, 0.432205),
    ],
)
def test_tabular_ppo_reaches_the_closed_form(beta, expected, objective, divergence):
    """One-token episodes of three actions: the clipped loss ends at ``pi_sft exp(r / beta) / Z``."""
    reference, reward = torch.tensor([0.5, 0.3, 0.2]).double(), torch.tensor([1.0, 0.0, -1.0]).double()
    unnormalised = reference * (reward / beta).exp()
    assert (unnormalised / unnormalised.sum()).tolist() == pytest.approx(expected, abs=1e-6)
    assert beta * math.log(unnormalised.sum()) == pytest.approx(objective, abs=1e-6)
    logits = reference.log().clone().requires_grad_(True)
    optimizer = torch.optim.Adam([logits], lr=0.02)
    mask = torch.ones(3, 1, dtype=torch.bool)
    for _ in range(600):
        old = logits.detach().log_softmax(dim=0)
        returns = token_rewards((old - reference.log())[:, None], reward, mask, beta)[:, 0]
        advantages = returns - (old.exp() * returns).sum()
        for _ in range(2):
            ratio = (logits.log_softmax(dim=0) - old).exp()
            loss = (old.exp() * policy_loss(ratio, advantages, 0.2)).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    found = logits.detach().softmax(dim=0)
    assert found.tolist() == pytest.approx(expected, abs=1e-2)
    assert (found * (found / reference).log()).sum().item() == pytest.approx(divergence, abs=2e-2)


def test_gold_prefers_the_reference_and_counts_each_fault():
    text, reference = "Joe is a small and fast editor for text files.", "small and fast editor for text"
    best = gold(text, reference, reference)
    assert best == 1
    assert gold(text, "small and fast editor for text.", reference) == pytest.approx(0.9)
    assert gold(text, "the " + reference, reference) < 0.9
    invented = gold(text, "small and fast editor for python", reference)
    assert invented == pytest.approx(5 / 6 - 0.3 / 4)
    assert gold(text, "fast editor fast editor fast editor", reference) < gold(text, "fast editor", reference)
    assert gold(text, "", reference) == 0


def test_labels_agree_as_often_as_asked():
    differences = np.random.default_rng(0).normal(size=40_000) * 0.2
    tau = temperature_for(differences)
    labels = label(differences, tau, np.random.default_rng(1))
    assert ((labels == 0) == (differences > 0)).mean() == pytest.approx(0.77, abs=0.01)
