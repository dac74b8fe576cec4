"""Tables of the process against closed forms and published numbers."""

import numpy as np
import pytest

from models.guided_diffusion.schedule import Schedule, spaced, spaced_sections, strided


@pytest.fixture
def linear():
    return Schedule.make("linear", 1000)


@pytest.fixture
def cosine():
    return Schedule.make("cosine", 1000)


def test_linear_schedule(linear):
    assert linear.alphas_bar.dtype == np.float64
    assert linear.alphas_bar[499] == pytest.approx(0.078587243, abs=1e-9)
    assert linear.alphas_bar[999] == pytest.approx(4.03583e-5, rel=1e-5)


def test_cosine_schedule(cosine):
    assert cosine.betas[0] == pytest.approx(4.12842e-5, rel=1e-5)
    assert cosine.alphas_bar[499] == pytest.approx(0.49384359, abs=1e-8)
    assert cosine.betas[999] == 0.999
    assert cosine.alphas_bar[999] == pytest.approx(2.42877e-9, rel=1e-5)


def test_linear_schedule_of_other_lengths_ends_as_noisy(linear):
    assert Schedule.make("linear", 250).alphas_bar[-1] == pytest.approx(linear.alphas_bar[-1], rel=0.2)


def test_posterior(linear):
    assert linear.posterior_variance[0] == 0
    assert linear.posterior_variance[1] == pytest.approx(5.45319e-5, rel=1e-5)
    ratio = linear.betas[1:] / linear.posterior_variance[1:]
    assert ratio[0] == pytest.approx(2.19908, rel=1e-5)
    assert ratio[498] == pytest.approx(1.000866, abs=1e-6)
    assert (linear.posterior_start[0], linear.posterior_noisy[0]) == (1.0, 0.0)
    assert linear.posterior_start[499] == pytest.approx(0.00307007, rel=1e-5)
    assert linear.posterior_noisy[499] == pytest.approx(0.994107, rel=1e-5)


def test_even_spacing_holds_both_ends():
    kept = spaced(1000, 25)
    assert kept[:7].tolist() == [0, 42, 83, 125, 166, 208, 250]
    assert kept[-2:].tolist() == [957, 999]
    assert (np.diff(spaced(1000, 47)) > 0).all()


@pytest.mark.parametrize("steps", [1, 1001])
def test_too_few_or_too_many_steps_are_named(steps):
    with pytest.raises(ValueError, match=f"steps: {steps}"):
        spaced(1000, steps)


def test_official_stride():
    assert strided(1000, 25).tolist() == list(range(0, 1000, 40))
    failing = []
    for steps in range(1, 101):
        try:
            strided(1000, steps)
        except ValueError:
            failing.append(steps)
    assert len(failing) == 47
    assert failing[:4] == [1, 37, 41, 43]


def test_sections():
    kept = spaced_sections(300, [10, 15, 20])
    assert kept[:4].tolist() == [0, 11, 22, 33]
    assert kept[9:11].tolist() == [99, 100]
    assert len(kept) == 45
    assert spaced_sections(30, [1, 1, 1]).tolist() == [0, 10, 20]


def test_respaced_process_keeps_the_signal(linear):
    kept = spaced(1000, 25)
    short = linear.respace(kept)
    assert np.allclose(short.alphas_bar, linear.alphas_bar[kept], rtol=1e-13, atol=1e-15)
    assert short.betas[0] == pytest.approx(1e-4)
    assert short.betas[-1] == pytest.approx(0.56439419, abs=1e-8)
    assert short.timesteps.tolist() == kept.tolist()
