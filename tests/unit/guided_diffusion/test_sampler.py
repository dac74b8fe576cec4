"""The samplers against numbers worked by hand and against a mixture whose noise and class are known exactly."""

import math

import pytest
import torch

from models.guided_diffusion.process import Process
from models.guided_diffusion.sampler import LEAST_SIGNAL, ddim_step, ddpm_step, gradient_of, sample
from models.guided_diffusion.schedule import Schedule
from models.guided_diffusion.schema import Params

WIDTH = 0.3
COUNT = 20_000


@pytest.fixture
def two_steps():
    """A process whose second step keeps A = 0.25 after A_p = 0.64."""
    return Process(
        Schedule(torch.tensor([0.36, 1 - 0.25 / 0.64], dtype=torch.float64).numpy(), torch.arange(2).numpy())
    )


def pixel(value):
    return torch.full((1, 1, 1, 1), value)


def step(process, *, eta=0.0, gradient=None, noise=0.0, scale=0.0):
    params = Params(eta=eta, clip_denoised=False, guidance_scale=scale)
    x, _ = ddim_step(process, pixel(0.5), pixel(1.0), 1, gradient, lambda: pixel(noise), params)
    return x.item()


def test_ddim_step(two_steps):
    assert step(two_steps) == pytest.approx(1.2071797, abs=1e-6)
    assert step(two_steps, eta=1.0) == pytest.approx(1.0370835, abs=1e-6)
    deviation = step(two_steps, eta=1.0, noise=1.0) - step(two_steps, eta=1.0)
    assert deviation**2 == pytest.approx(0.2925, abs=1e-5)
    assert deviation**2 == pytest.approx(two_steps.schedule.posterior_variance[1], abs=1e-6)


def test_guided_ddim_step(two_steps):
    assert step(two_steps, gradient=lambda x, t: pixel(0.4), scale=2.0) == pytest.approx(1.7514875, abs=1e-6)


def test_clipping_keeps_large_scales_in_range(two_steps):
    params = Params(guidance_scale=20)
    _, start = ddim_step(two_steps, pixel(0.5), pixel(1.0), 1, lambda x, t: pixel(9.0), pixel, params)
    assert start.abs().max() <= 1


def test_ddpm_takes_the_gradient_where_it_is_told(two_steps):
    seen = []

    def gradient(x, t):
        seen.append((round(x.item(), 4), t.item()))
        return pixel(1.0)

    for where in ("x", "mean"):
        params = Params(sampler="ddpm", variance="small", guidance_at=where, guidance_scale=1, clip_denoised=False)
        x, _ = ddpm_step(two_steps, pixel(0.5), pixel(1.0), 1, gradient, lambda: pixel(0.0), params)
        assert x.item() == pytest.approx(1.0370835 + 0.2925, abs=1e-5)
    assert seen == [(1.0, 1), (1.0371, 0)]


class Mixture:
    """Half N(-1, 0.3^2), half N(1, 0.3^2): the exact noise of a noisy sample, and which half it is from."""

    def __init__(self, schedule):
        self.kept = torch.from_numpy(schedule.alphas_bar)

    def at(self, x, t):
        kept = self.kept[t].view(-1, 1, 1, 1).to(x)
        return kept, kept * WIDTH**2 + 1 - kept

    def logits(self, x, t):
        kept, variance = self.at(x, t)
        centres = torch.tensor([-1.0, 1.0]).view(1, 2, 1, 1) * kept.sqrt()
        return (-((x - centres) ** 2) / (2 * variance)).flatten(1)

    def noise(self, x, t):
        kept, variance = self.at(x, t)
        right = self.logits(x, t).softmax(dim=1)[:, 1].view(-1, 1, 1, 1)
        score = (kept.sqrt() * (2 * right - 1) - x) / variance
        return -(1 - kept).sqrt() * score


def draw(schedule, params):
    mixture = Mixture(schedule)
    steps = schedule.respace(torch.linspace(0, len(schedule) - 1, params.steps).round().long().numpy())
    process = Process(steps)
    random = torch.Generator().manual_seed(0)
    x = torch.randn(COUNT, 1, 1, 1, generator=random)
    gradient = gradient_of(mixture.logits, torch.ones(COUNT, dtype=torch.long)) if params.guidance_scale else None
    advance = ddim_step if params.sampler == "ddim" else ddpm_step
    for index in reversed(range(len(process))):
        t = torch.full((COUNT,), index)
        output = mixture.noise(x, process.timesteps[t])
        x, _ = advance(
            process, output, x, index, gradient, lambda: torch.randn(COUNT, 1, 1, 1, generator=random), params
        )
    return x.mean().item(), x.std().item(), (x > 0).float().mean().item()


def ddpm(**fields):
    return Params(sampler="ddpm", variance="small", clip_denoised=False, **fields)


def test_exact_guidance_reaches_the_class():
    schedule = Schedule.make("linear", 250)
    mean, deviation, right = draw(schedule, ddpm(steps=250, guidance_scale=1, guidance_at="x"))
    assert (mean, deviation, right) == pytest.approx((0.993, 0.291, 0.999), abs=0.02)
    assert draw(schedule, ddpm(steps=250, guidance_scale=0))[2] == pytest.approx(0.5, abs=0.02)


def test_exact_guidance_in_25_steps():
    schedule = Schedule.make("linear", 1000)
    found = draw(schedule, Params(steps=25, guidance_scale=1, clip_denoised=False))
    assert found == pytest.approx((0.996, 0.251, 1.0), abs=0.02)
    at_x = draw(schedule, ddpm(steps=25, guidance_scale=1, guidance_at="x"))[2]
    at_mean = draw(schedule, ddpm(steps=25, guidance_scale=1, guidance_at="mean"))[2]
    assert at_x == pytest.approx(0.933, abs=0.02)
    assert at_mean == pytest.approx(0.992, abs=0.02)


def test_scale_zero_and_the_interval_leave_the_classifier_alone():
    schedule = Schedule.make("cosine", 100)
    calls = []

    def gradient(x, t):
        calls.append(int(t[0]))
        return torch.zeros_like(x)

    def run(**fields):
        calls.clear()
        params = Params(steps=12, **fields)
        *_, (share, x) = sample(lambda x, t: 0.1 * x, gradient, schedule, (1, 4, 4), [5], params)
        assert share == 1
        return x

    plain = run(guidance_scale=0)
    assert not calls
    assert torch.equal(run(guidance_scale=0, guidance_interval=(0.2, 0.4)), plain)
    run(guidance_scale=2, guidance_interval=(0.2, 0.4))
    assert calls
    assert all(0.2 <= t / 99 <= 0.4 for t in calls)


@pytest.mark.parametrize("kind", ["cosine", "linear"])
def test_an_error_is_not_blown_up_where_there_is_no_signal(kind):
    schedule = Schedule.make(kind, 1000)
    kept = torch.from_numpy(schedule.alphas_bar).float()
    error = 0.02 * torch.randn(1, 4, 4, generator=torch.Generator().manual_seed(0))
    asked = []

    def predict(x, t):
        """The exact noise of a process whose every picture is 0.3 everywhere, and a small error."""
        asked.append(int(t[0]))
        share = kept[t].view(-1, 1, 1, 1)
        return (x - 0.3 * share.sqrt()) / (1 - share).sqrt() + error

    last, share = schedule.last_above(LEAST_SIGNAL)
    assert schedule.alphas_bar[last + 1] <= LEAST_SIGNAL < share
    for sampler in ("ddim", "ddpm"):
        params = Params(steps=25, sampler=sampler, variance="small", guidance_scale=0)
        (_, first), *_, (_, x) = sample(predict, None, schedule, (1, 4, 4), [7], params)
        assert asked[0] == last  # told the last step, the network would be wrong by 0.02 * 20,000
        assert (first - 0.3).abs().mean() < 0.5
        assert (x - 0.3).abs().max() < 0.05
        asked.clear()


def test_a_class_of_its_own_or_none_for_each_picture():
    x, t = torch.randn(3, 1, 4, 4), torch.tensor([3, 3, 3])
    gradient = gradient_of(lambda x, t: torch.stack([x.sum((1, 2, 3)), -x.sum((1, 2, 3))], 1), torch.tensor([0, -1, 1]))
    found = gradient(x, t)
    assert torch.equal(found[1], torch.zeros(1, 4, 4))
    expected = 2 * torch.sigmoid(-2 * x[0].sum())
    assert torch.allclose(found[0], expected.expand(1, 4, 4), atol=1e-5)
    assert (found[2] <= 0).all()
    assert math.isfinite(found.sum().item())
