import numpy as np
import pytest
import torch
from torch.nn import functional as F

from models.align_uniform import losses, metrics


def unit(count, dimensions, seed=0):
    return F.normalize(torch.randn(count, dimensions, generator=torch.Generator().manual_seed(seed)), dim=1)


def test_uniformity_in_blocks_is_the_loss():
    x = unit(2500, 6)
    assert metrics.uniformity_of(x) == pytest.approx(losses.uniformity(x.double()).item(), abs=1e-9)


def test_class_uniformity():
    x = torch.cat([unit(1, 4).repeat(5, 1), torch.eye(4), unit(1, 4, seed=1)])
    labels = np.array([0] * 5 + [1] * 4 + [2])
    tight, spread, single, empty = metrics.class_uniformity(x, labels, 4)
    assert tight == pytest.approx(0, abs=1e-5)
    assert spread == pytest.approx(-4, abs=1e-6)
    assert single is None
    assert empty is None


def test_effective_rank():
    assert metrics.effective_rank(torch.cat([torch.eye(6), -torch.eye(6)])) == pytest.approx(6, abs=1e-6)
    line = torch.tensor([[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    assert metrics.effective_rank(line) == pytest.approx(1, abs=1e-6)
    assert metrics.effective_rank(unit(1, 5).repeat(7, 1)) == 0


def test_hubness_of_a_ring_is_even_and_of_a_star_is_not():
    angles = torch.arange(12) * (2 * torch.pi / 12)
    ring = metrics.hubness(torch.stack([angles.cos(), angles.sin()], dim=1), 2)
    assert ring == {"skewness": 0.0, "largest": 2.0, "orphans": 0.0}
    hub = torch.ones(1, 10)
    spokes = torch.eye(10) + 0.25
    star = metrics.hubness(F.normalize(torch.cat([hub, spokes]), dim=1), 1)
    assert star["largest"] == 10
    assert star["skewness"] > 2
    assert star["orphans"] == pytest.approx(9 / 11)


def test_circle_angles_keep_two_dimensions_and_project_more():
    angles = torch.linspace(-3, 3, 20)
    flat = torch.stack([angles.cos(), angles.sin()], dim=1)
    assert metrics.circle_angles(flat) == pytest.approx(angles.numpy(), abs=1e-6)
    assert metrics.circle_angles(unit(30, 8)).shape == (30,)


def test_angle_density_integrates_to_one_and_wraps():
    at = np.linspace(-np.pi, np.pi, 721)
    density = metrics.angle_density(np.array([np.pi, 0.0, 0.0]), at)
    assert np.trapezoid(density, at) == pytest.approx(1, abs=1e-3)
    assert density[0] == pytest.approx(density[-1])
    assert density[360] == pytest.approx(2 * density[0])
