import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from models.align_uniform import losses, metrics

D = torch.float64


def unit(count, dimensions, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, dimensions, dtype=D, generator=generator), dim=1)


def simplex(k):
    return F.normalize(torch.eye(k, dtype=D) - 1 / k, dim=1)


@pytest.mark.parametrize(("dimensions", "expected"), [(2, -1.57503), (3, -2.07978), (64, -3.87524), (128, -3.93753)])
def test_optimum_of_the_uniform_law(dimensions, expected):
    assert losses.uniformity_optimum(dimensions, 2.0) == pytest.approx(expected, abs=6e-6)


def test_optimum_tends_to_minus_two_t():
    assert losses.uniformity_optimum(20_000, 2.0) == pytest.approx(-4, abs=1e-3)


def test_a_uniform_sample_reaches_the_optimum():
    assert metrics.uniformity_of(unit(6000, 3)) == pytest.approx(losses.uniformity_optimum(3), abs=0.01)


@pytest.mark.parametrize("t", [0.5, 2.0, 16.0])
def test_orthonormal_rows(t):
    assert losses.uniformity(torch.eye(16, dtype=D), t).item() == pytest.approx(-2 * t, abs=1e-12)


@pytest.mark.parametrize("k", [2, 5, 9])
def test_simplex_lies_below_the_population_optimum(k):
    t = 2.0
    value = losses.uniformity(simplex(k), t).item()
    assert value == pytest.approx(-2 * t * k / (k - 1), abs=1e-12)
    assert value < losses.uniformity_optimum(k - 1 if k > 2 else 2, t)


def test_collapsed_batch_is_zero_and_has_a_finite_gradient():
    x = unit(1, 8).repeat(10, 1).requires_grad_()
    total = losses.alignment(x, x.flip(0), 2.0) + losses.uniformity(x)
    assert total.item() == pytest.approx(0, abs=1e-12)
    (gradient,) = torch.autograd.grad(total, x)
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0, 3.5])
def test_antipodal_pairs(alpha):
    x = unit(12, 5)
    assert losses.alignment(x, -x, alpha).item() == pytest.approx(2**alpha, abs=1e-12)


@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_alignment_of_coincident_pairs_has_a_finite_gradient(alpha):
    x = unit(4, 5).requires_grad_()
    value = losses.alignment(x, x.detach().clone(), alpha)
    (gradient,) = torch.autograd.grad(value, x)
    assert value.item() == 0
    assert torch.isfinite(gradient).all()


def test_alignment_is_two_minus_two_mean_cosines():
    x, y = unit(50, 7), unit(50, 7, seed=1)
    assert losses.alignment(x, y).item() == pytest.approx(2 - 2 * (x * y).sum(1).mean().item(), abs=1e-12)


def test_limit_on_the_circle():
    assert losses.contrastive_limit_on_circle(0.5) == pytest.approx(-1.17601, abs=5e-6)


def test_rotations_change_neither_loss():
    x, y = unit(64, 16), unit(64, 16, seed=1)
    q, _ = torch.linalg.qr(torch.randn(16, 16, dtype=D, generator=torch.Generator().manual_seed(2)))
    for before, after in (
        (losses.alignment(x, y, 1.5), losses.alignment(x @ q, y @ q, 1.5)),
        (losses.uniformity(x), losses.uniformity(x @ q)),
        (losses.joint_uniformity(x, y), losses.joint_uniformity(x @ q, y @ q)),
    ):
        assert after.item() == pytest.approx(before.item(), abs=1e-9)


def test_two_forms_of_the_kernel_agree():
    x, y, t = unit(9, 4), unit(11, 4, seed=1), 2.0
    by_distance = torch.exp(-t * losses.squared_distances(x, y))
    by_product = torch.exp(2 * t * (x @ y.T) - 2 * t)
    assert torch.allclose(by_distance, by_product, atol=1e-12)
    assert torch.allclose(losses.squared_distances(x, y), torch.cdist(x, y).square(), atol=1e-12)


@pytest.mark.parametrize("k", [3, 6])
def test_gradient_at_a_regular_simplex_is_radial(k):
    x = simplex(k).requires_grad_()
    (gradient,) = torch.autograd.grad(losses.uniformity(x), x)
    radial = (gradient * x).sum(1, keepdim=True) * x
    assert gradient.norm() > 1e-3
    assert torch.allclose(gradient, radial, atol=1e-12)


def test_small_t_is_the_mean_squared_distance():
    x, t = unit(40, 6), 1e-6
    off = ~torch.eye(40, dtype=torch.bool)
    assert losses.uniformity(x, t).item() / t == pytest.approx(
        -losses.squared_distances(x, x)[off].mean().item(), rel=1e-5
    )


@pytest.mark.parametrize("temperature", [0.1, 0.5, 1.0])
def test_info_nce_of_orthonormal_aligned_rows(temperature):
    n = 12
    x = torch.eye(n, dtype=D)
    negatives = torch.stack([torch.cat([x[:i], x[i + 1 :]]) for i in range(n)])
    value = losses.contrastive(x, x, negatives, temperature).item()
    assert value == pytest.approx(math.log(1 + (n - 1) * math.exp(-1 / temperature)), abs=1e-12)
    collapsed = x[:1].repeat(n, 1)
    assert losses.contrastive(collapsed, collapsed, collapsed[1:], temperature).item() == pytest.approx(math.log(n))


def test_nt_xent_of_orthonormal_and_collapsed_rows():
    n, temperature = 10, 0.5
    x = torch.eye(n, dtype=D)
    expected = math.log(1 + (2 * n - 2) * math.exp(-1 / temperature))
    assert losses.nt_xent(x, x, temperature).item() == pytest.approx(expected, abs=1e-12)
    collapsed = x[:1].repeat(n, 1)
    assert losses.nt_xent(collapsed, collapsed, temperature).item() == pytest.approx(math.log(2 * n - 1))


def test_nt_xent_agrees_with_the_contrastive_loss_on_the_same_negatives():
    x, y, temperature = unit(6, 5), unit(6, 5, seed=1), 0.3
    rows, positives = torch.cat([x, y]), torch.cat([y, x])
    negatives = torch.stack(
        [torch.stack([row for j, row in enumerate(rows) if j not in (i, (i + 6) % 12)]) for i in range(12)]
    )
    expected = losses.contrastive(rows, positives, negatives, temperature).item()
    assert losses.nt_xent(x, y, temperature).item() == pytest.approx(expected, abs=1e-12)


def test_theorem_one_gap_is_inside_the_bound():
    from models.align_uniform.proof import theorem_on_circle

    table = {point["M"]: point for point in theorem_on_circle(anchors=10_000)}
    for negatives, expected in ((16, 0.163), (64, 0.0402), (256, 0.0105), (1024, 0.0026), (4096, 0.0005)):
        point = table[negatives]
        assert point["deviation"] == pytest.approx(expected, abs=4.5 * point["standard_error"])
        assert abs(point["deviation"]) <= 1.2 * negatives**-0.5


def test_contrastive_takes_shared_negatives_like_its_own():
    x, y, shared = unit(5, 4), unit(5, 4, seed=1), unit(7, 4, seed=2)
    own = shared.expand(5, -1, -1)
    assert losses.contrastive(x, y, shared, 0.5).item() == pytest.approx(losses.contrastive(x, y, own, 0.5).item())


def test_joint_uniformity_leaves_the_positives_out():
    x, y = unit(5, 4), unit(5, 4, seed=1)
    rows = torch.cat([x, y])
    kept = [
        math.exp(-2 * (rows[i] - rows[j]).square().sum().item()) for i in range(10) for j in range(10) if i % 5 != j % 5
    ]
    assert losses.joint_uniformity(x, y).item() == pytest.approx(math.log(np.mean(kept)), abs=1e-12)


def test_far_rows_do_not_underflow():
    x = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    assert losses.uniformity(x, 64.0).item() == pytest.approx(-256, rel=1e-6)


def test_one_row_is_refused():
    with pytest.raises(ValueError, match="at least two rows"):
        losses.uniformity(unit(1, 3))
    with pytest.raises(ValueError, match="at least two rows"):
        metrics.uniformity_of(unit(1, 3))
