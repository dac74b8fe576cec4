"""Curvature: exact on quadratics, equal to an explicit Hessian, and what the landscape says."""

import numpy as np
import pytest
import torch
from torch import nn

from models.sam.curvature import flatten, hessian_product, hutchinson_trace, spectrum_ends, trainable
from models.sam.landscape import (
    filter_normalised,
    loss_at,
    moved,
    random_increase,
    slices,
    worst_increase,
)


class Quadratic(nn.Module):
    """``w' A w / 2``."""

    def __init__(self, matrix, at):
        super().__init__()
        self.matrix, self.w = matrix, nn.Parameter(at)

    def loss(self):
        return 0.5 * self.w @ self.matrix @ self.w


def quadratic(diagonal=(4.0, 1.0), at=(1.0, 1.0)):
    return Quadratic(torch.diag(torch.tensor(diagonal, dtype=torch.float64)), torch.tensor(at, dtype=torch.float64))


def product_of(module):
    return hessian_product(trainable(module), module.loss())


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_eigenvalues_of_a_quadratic_at_both_ends():
    module = quadratic((4.0, 1.0, -3.0, 0.5), (1.0,) * 4)
    start = torch.randn(4, generator=generator(), dtype=torch.float64)
    ends = spectrum_ends(product_of(module), start, 40)
    assert np.allclose(ends.values, [4, 1, 0.5, -3], atol=1e-6)
    assert ends.largest(1) == pytest.approx(4, abs=1e-6) and ends.largest(9) == pytest.approx(-3, abs=1e-6)
    assert ends.residual < 1e-6


def test_power_of_lanczos_on_a_large_spectrum():
    diagonal = torch.cat([torch.linspace(0, 1, 500, dtype=torch.float64), torch.tensor([3.0, 2.5, 2.0, 1.6, 1.3])])
    start = torch.randn(505, generator=generator(), dtype=torch.float64)
    ends = spectrum_ends(lambda v: diagonal * v, start, 40)
    assert ends.values[:5] == pytest.approx([3, 2.5, 2, 1.6, 1.3], abs=1e-6)
    few = spectrum_ends(lambda v: diagonal * v, start, 6)
    assert 3 - few.largest(1) <= few.residual + 1e-12


def test_the_trace_of_a_diagonal_is_exact_with_any_probe():
    trace, error = hutchinson_trace(product_of(quadratic()), torch.zeros(2, dtype=torch.float64), 2, generator())
    assert trace == 5 and error == 0


def test_the_trace_lies_within_its_error():
    drawn = torch.randn(30, 30, generator=generator(), dtype=torch.float64)
    matrix = drawn @ drawn.T
    trace, error = hutchinson_trace(lambda v: matrix @ v, matrix[0], 200, generator())
    assert abs(trace - float(matrix.trace())) < 4 * error < 0.5 * float(matrix.trace())


def test_products_of_a_network_equal_its_explicit_hessian():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).double()
    x, y = torch.randn(9, 3, dtype=torch.float64), torch.arange(9) % 2
    weights = trainable(net)
    shapes = [w.shape for w in weights]

    def loss_of(flat):
        parts = flat.split([s.numel() for s in shapes])
        named = {name: p.view(s) for (name, _), p, s in zip(net.named_parameters(), parts, shapes, strict=True)}
        return nn.functional.cross_entropy(torch.func.functional_call(net, named, (x,)), y)

    hessian = torch.autograd.functional.hessian(loss_of, flatten([w.detach() for w in weights]))
    product = hessian_product(weights, nn.functional.cross_entropy(net(x), y))
    vector = torch.randn(len(hessian), generator=generator(), dtype=torch.float64)
    assert torch.allclose(product(vector), hessian @ vector, atol=1e-10)
    ends = spectrum_ends(product, vector, len(hessian))
    assert np.allclose(ends.values[0], torch.linalg.eigvalsh(hessian).max(), atol=1e-8)
    assert np.allclose(ends.values[-1], torch.linalg.eigvalsh(hessian).min(), atol=1e-8)


def test_a_network_without_parameters_is_refused():
    with pytest.raises(ValueError, match="no parameters"):
        trainable(nn.ReLU())


def test_the_worst_rise_of_a_quadratic():
    module = quadratic()
    weights = trainable(module)
    one = worst_increase(weights, module.loss, 0.1, 1)
    assert one == pytest.approx(2.9314282 - 2.5, abs=1e-6)  # along the gradient, the step of SAM
    many = worst_increase(weights, module.loss, 0.1, 20)
    assert many == pytest.approx(2.9314850 - 2.5, abs=1e-6) and many > one  # the true maximum on the ball
    assert torch.equal(module.w.detach(), torch.ones(2, dtype=torch.float64))


def test_a_random_rise_is_half_the_mean_curvature():
    module = quadratic((4.0,) * 50, (0.0,) * 50)
    rise, error = random_increase(trainable(module), module.loss, 0.1, generator())
    assert rise == pytest.approx(0.5 * 4 * 0.01, rel=1e-9) and error < 1e-12


def test_filters_keep_their_norms_and_biases_their_place():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 5, 3), nn.BatchNorm2d(5))
    conv, bias, scale, shift = filter_normalised(list(net.parameters()), generator())
    assert torch.allclose(conv.flatten(1).norm(dim=1), net[0].weight.detach().flatten(1).norm(dim=1))
    assert not any(part.any() for part in (bias, scale, shift))


def test_slices_pass_through_the_weights_and_leave_them():
    torch.manual_seed(0)
    net = nn.Linear(3, 2)
    x, y = torch.randn(8, 3), torch.arange(8) % 2
    loss = lambda: nn.functional.cross_entropy(net(x), y)  # noqa: E731
    before = [w.detach().clone() for w in net.parameters()]
    positions, plane = slices(list(net.parameters()), loss, 1.0, 5, generator())
    assert positions.tolist() == [-1, -0.5, 0, 0.5, 1]
    assert plane[2, 2] == pytest.approx(loss().item(), abs=1e-7)
    first = filter_normalised(list(net.parameters()), generator())
    assert plane[2, 4] == pytest.approx(loss_at(list(net.parameters()), first, loss), abs=1e-6)
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))


def test_weights_come_back_after_an_exception():
    net = nn.Linear(2, 1)
    before = net.weight.detach().clone()
    with pytest.raises(ZeroDivisionError), moved([net.weight], [torch.ones(1, 2)]):
        raise ZeroDivisionError
    assert torch.equal(net.weight.detach(), before)
