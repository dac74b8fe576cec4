"""The maths of Ho et al. 2020 and Nichol & Dhariwal 2021, number by number."""

import numpy as np
import pytest
import torch

from models.guided_diffusion.blocks import time_embedding
from models.guided_diffusion.process import Process, discretised_log_likelihood, gaussian_kl, prior_bits
from models.guided_diffusion.schedule import Schedule, spaced
from models.guided_diffusion.timesteps import LossSecondMomentSteps


@pytest.fixture
def linear():
    return Process(Schedule.make("linear", 1000))


def pixel(value):
    return torch.full((1, 1, 1, 1), value)


def test_mean_from_noise_and_from_the_picture_agree(linear):
    t = torch.tensor([499])
    x, e = pixel(0.3), pixel(-0.7)
    beta, kept = linear.schedule.betas[499], linear.schedule.alphas_bar[499]
    from_noise = (0.3 - beta / np.sqrt(1 - kept) * -0.7) / np.sqrt(1 - beta)
    start = linear.start_from_noise(x, t, e)
    assert from_noise == pytest.approx(0.3088760820, abs=1e-10)
    assert start.item() == pytest.approx(3.4670470, abs=1e-5)
    assert linear.posterior_mean(start, x, t).item() == pytest.approx(from_noise, abs=1e-6)
    assert linear.noise_from_start(x, t, start).item() == pytest.approx(-0.7, abs=1e-6)


@pytest.mark.parametrize(
    ("t", "v", "expected"), [(1, -1, -9.816725), (1, 0, -9.422706), (1, 1, -9.028686), (0, -1, -9.816725)]
)
def test_learned_variance(linear, t, v, expected):
    found = linear.log_variance("learned", torch.tensor([t]), pixel(float(v)))
    assert found.item() == pytest.approx(expected, abs=1e-5)


def test_variance_of_a_respaced_process_is_its_own(linear):
    short = linear.schedule.respace(spaced(1000, 25))
    process, t = Process(short), torch.tensor([24])
    assert process.log_variance("large", t, None).item() == pytest.approx(np.log(0.56439419), abs=1e-6)
    assert process.log_variance("small", t, None).item() == pytest.approx(
        np.log(short.posterior_variance[24]), abs=1e-6
    )
    first = torch.tensor([0])
    assert process.log_variance("large", first, None).item() == pytest.approx(
        np.log(short.posterior_variance[1]), abs=1e-5
    )


def test_kl_divergence():
    zero = torch.zeros(())
    nats = gaussian_kl(zero, zero, torch.ones(()), torch.ones(())).item()
    assert nats == pytest.approx(0.3678794, abs=1e-7)
    assert nats / np.log(2) == pytest.approx(0.5307378, abs=1e-7)


def test_discretised_likelihood_is_a_distribution():
    values = torch.arange(256) / 127.5 - 1
    for mean, log_scale in ((0.0, -2.0), (0.9, -1.0), (-1.2, 0.5)):
        logs = discretised_log_likelihood(values, torch.tensor(mean), torch.tensor(log_scale))
        assert logs.double().exp().sum().item() == pytest.approx(1, abs=1e-5)
    found = discretised_log_likelihood(values[128], torch.tensor(0.0), torch.tensor(-2.0))
    assert found.item() == pytest.approx(-3.76762, abs=1e-4)


def test_time_embedding():
    expected = [-0.839072, 0.540302, 0.995004, 0.99995, -0.544021, 0.841471, 0.099833, 0.01]
    assert time_embedding(torch.tensor([10]), 8)[0].tolist() == pytest.approx(expected, abs=1e-5)


def test_each_loss_trains_its_own_half(linear):
    random = torch.Generator().manual_seed(0)
    start, noise = (torch.randn(8, 1, 4, 4, generator=random).clamp(-1, 1) for _ in range(2))
    t = torch.tensor([0, 1, 5, 50, 300, 500, 900, 999])
    output = torch.randn(8, 2, 4, 4, generator=random, requires_grad=True)
    x = linear.noised(start, t, noise)
    simple, bound = linear.losses(output, start, x, t, noise)
    (of_simple,) = torch.autograd.grad(simple.sum(), output, retain_graph=True)
    (of_bound,) = torch.autograd.grad(bound.sum(), output)
    assert torch.equal(of_simple[:, 1], torch.zeros(8, 4, 4))
    assert torch.equal(of_bound[:, 0], torch.zeros(8, 4, 4))
    assert (of_bound[:, 1] != 0).any()


def test_the_true_posterior_has_no_divergence(linear):
    start, noise = torch.rand(2, 1, 4, 4) * 2 - 1, torch.randn(2, 1, 4, 4)
    t = torch.tensor([10, 700])
    x = linear.noised(start, t, noise)
    mean = linear.posterior_mean(start, x, t)
    bound = linear.variational_bound(start, x, t, mean, linear.log_variance("small", t, None).expand_as(mean))
    assert bound.abs().max() < 1e-6


def test_prior_is_almost_noise(linear):
    assert 0 < prior_bits(linear, torch.ones(1, 1, 4, 4)).item() < 1e-4


def test_steps_follow_the_root_of_the_second_moment():
    steps = LossSecondMomentSteps(4)
    assert torch.allclose(steps.probabilities(), torch.full((4,), 0.25, dtype=torch.float64))
    for _ in range(12):
        steps.update(torch.arange(4), torch.tensor([1.0, 2.0, 3.0, 4.0]))
    expected = 0.999 * torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64) + 0.001 / 4
    assert torch.allclose(steps.probabilities(), expected)
    t, weights = steps.draw(4000, torch.Generator().manual_seed(0))
    assert torch.allclose(weights, (1 / (4 * expected[t])).float())
    assert weights.mean().item() == pytest.approx(1, abs=0.05)
