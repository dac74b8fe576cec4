"""Sharpness-aware minimization: closed forms, the published formulation, and what a step must leave untouched."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from models.core.optim import SAM, adaptive_scales, perturbation
from models.core.trainer_options import SharpnessAware
from models.core.training import pack_training, unpack_training

QUADRATIC = torch.tensor([4.0, 1.0], dtype=torch.float64)


def weights(*values):
    return nn.Parameter(torch.tensor(values, dtype=torch.float64))


def sam(parameter, loss, lr=0.1, **options):
    """An optimiser of one parameter with its closure."""
    module = nn.Module()
    module.weight = parameter
    optimizer = SAM(torch.optim.SGD([parameter], lr), SharpnessAware(kind="sam", **options), module)

    def closure(rows=slice(None)):
        optimizer.zero_grad()
        value = loss(parameter) if rows == slice(None) else loss(parameter, rows)
        value.backward()
        return value.detach()

    return optimizer, closure


def test_a_step_on_a_quadratic_is_the_truncated_one():
    w = weights(1.0, 1.0)
    optimizer, closure = sam(w, lambda w: 0.5 * (QUADRATIC * w**2).sum(), rho=0.1)
    assert float(optimizer.step(closure)) == 2.5
    # The gradient with the second-order term would be (4.3897179, 1.0225927).
    assert w.grad.tolist() == pytest.approx([4.388057, 1.02425356], abs=1e-6)
    assert w.tolist() == pytest.approx([0.5611943, 0.8975746], abs=1e-6)
    (eps,) = perturbation([QUADRATIC], 0.1)
    assert eps.tolist() == pytest.approx([0.09701425, 0.02425356], abs=1e-8)
    assert float(0.5 * (QUADRATIC * (1 + eps) ** 2).sum()) == pytest.approx(2.9314282, abs=1e-6)


@pytest.mark.parametrize(
    ("p", "expected", "rise"),
    [(2, None, 0.4123106), (4, [0.0964097, 0.0607343], 0.4463730), (float("inf"), [0.1, 0.1], 0.5)],
)
def test_the_perturbation_solves_the_dual_norm_problem(p, expected, rise):
    (eps,) = perturbation([QUADRATIC], 0.1, p)
    if expected:
        assert eps.tolist() == pytest.approx(expected, abs=1e-7)
    assert float(torch.linalg.vector_norm(eps, p)) == pytest.approx(0.1)
    assert float(QUADRATIC @ eps) == pytest.approx(rise, abs=1e-6)
    generator = torch.Generator().manual_seed(0)
    others = torch.randn(500, 2, generator=generator, dtype=torch.float64)
    others = 0.1 * others / torch.linalg.vector_norm(others, p, dim=1, keepdim=True)
    assert float((others @ QUADRATIC).max()) <= rise + 1e-6


def test_one_norm_over_all_tensors_and_none_of_zero():
    a, b = torch.tensor([[3.0]]), torch.tensor([4.0])
    assert [float(e) for e in perturbation([a, b], 1.0)] == pytest.approx([0.6, 0.8])
    assert all(not e.any() for p in (2, 4, float("inf")) for e in perturbation([0 * a, 0 * b], 1.0, p))


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1e6, 1e30])
def test_the_loss_may_be_scaled(scale):
    gradient = torch.randn(100, generator=torch.Generator().manual_seed(1))
    for p in (2, 4):
        torch.testing.assert_close(
            perturbation([scale * gradient], 0.1, p), perturbation([gradient], 0.1, p), rtol=1e-5, atol=1e-7
        )


def test_a_constant_rate_ends_in_the_two_cycle():
    w = weights(0.02)
    optimizer, closure = sam(w, lambda w: (w**2).sum() / 2, rho=0.1)
    seen = []
    for _ in range(400):
        optimizer.step(closure)
        seen.append(w.item())
    assert seen[:5] == pytest.approx([0.008, -0.0028, 0.00748, -0.003268, 0.0070588], abs=1e-7)
    assert sorted(seen[-2:]) == pytest.approx([-0.00526316, 0.00526316], abs=1e-8)


def test_logistic_loss_shifts_the_margin():
    w, x = weights(0.0, 0.0), torch.tensor([3.0, 4.0], dtype=torch.float64)
    optimizer, closure = sam(w, lambda w: F.softplus(-(w @ x)), rho=0.1)
    optimizer.step(closure)
    assert w.grad.tolist() == pytest.approx([-1.867378, -2.489837], abs=1e-6)


def test_adaptive_perturbations_do_not_see_the_scale_of_weights():
    for weight, gradient, expected in (
        ([[2.0, 0.5]], [[1.0, 4.0]], [0.7071068, 0.1767767]),
        ([[20.0, 0.05]], [[0.1, 40.0]], [7.0710678, 0.0176777]),
    ):
        w, g = torch.tensor(weight), torch.tensor(gradient)
        (eps,) = perturbation([g], 0.5, 2, adaptive_scales([w], eta=0))
        assert eps[0].tolist() == pytest.approx(expected, rel=1e-5)
        assert (eps / w)[0].tolist() == pytest.approx([0.35355] * 2, abs=1e-5)
        assert float((eps / w).norm()) == pytest.approx(0.5)
    assert adaptive_scales([torch.ones(3)])[0].tolist() == [1, 1, 1]


def test_every_part_of_the_batch_has_its_own_perturbation():
    seen = []

    def loss(w, rows=slice(None)):
        seen.append(w.detach().clone())
        return (torch.eye(2, dtype=torch.float64)[rows] @ w).mean()

    for m, expected in ((2, [[0.0707107, 0.0707107]]), (1, [[0.1, 0.0], [0.0, 0.1]])):
        seen.clear()
        optimizer, closure = sam(weights(0.0, 0.0), loss, rho=0.1, m=m)
        optimizer.step(closure, samples=2)
        assert torch.stack(seen[1::2]).tolist() == [pytest.approx(row, abs=1e-7) for row in expected]
        assert optimizer.param_groups[0]["params"][0].grad.tolist() == pytest.approx([0.5, 0.5])


def network(dropout=0.0):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(6, 16, bias=False), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(dropout), nn.Linear(16, 3, bias=False)
    )


def train(net, optimizer, steps, first=0):
    for number in range(first, first + steps):
        generator = torch.Generator().manual_seed(number)
        batch = torch.randn(32, 6, generator=generator)
        labels = torch.randint(0, 3, (32,), generator=generator)

        def closure(rows=slice(None), batch=batch, labels=labels):
            optimizer.zero_grad()
            loss = F.cross_entropy(net(batch[rows]), labels[rows])
            loss.backward()
            return loss.detach()

        if isinstance(optimizer, SAM):
            optimizer.step(closure, samples=32)
        else:
            optimizer.step(closure)


def flat(net):
    return torch.cat([value.double().flatten() for value in net.state_dict().values()])


def sgd(net):
    return torch.optim.SGD(net.parameters(), 0.1, momentum=0.9, nesterov=True, weight_decay=5e-4)


@pytest.mark.parametrize(
    "options", [{"kind": "none"}, {"kind": "sam", "rho": 0.0}, {"kind": "sam", "start_fraction": 1.0}]
)
def test_without_a_radius_it_is_the_base_optimiser_bit_for_bit(options):
    plain = network(0.5)
    train(plain, sgd(plain), 6)
    other = network(0.5)
    train(other, SAM(sgd(other), SharpnessAware(**options), other, total_steps=6), 6)
    assert torch.equal(flat(plain), flat(other))


def published_step(net, base, batch, labels, rho, adaptive):
    """The widely used PyTorch formulation, by hand: perturb by e_w, take the gradient there, restore, step."""
    base.zero_grad()
    F.cross_entropy(net(batch), labels).backward()
    norms = [((p.abs() if adaptive else 1.0) * p.grad).norm(p=2) for p in net.parameters()]
    scale = rho / (torch.norm(torch.stack(norms), p=2) + 1e-12)
    old = [p.data.clone() for p in net.parameters()]
    with torch.no_grad():
        for p in net.parameters():
            p.add_((torch.pow(p, 2) if adaptive else 1.0) * p.grad * scale)
    base.zero_grad()
    F.cross_entropy(net(batch), labels).backward()
    for p, value in zip(net.parameters(), old, strict=True):
        p.data = value
    base.step()


@pytest.mark.parametrize("kind", ["sam", "asam"])
def test_updates_equal_the_published_formulation(kind, monkeypatch):
    monkeypatch.setattr(adaptive_scales, "__defaults__", (0.0,))
    torch.manual_seed(3)
    ours = nn.Sequential(nn.Linear(6, 16, bias=False), nn.Tanh(), nn.Linear(16, 3, bias=False))
    theirs = copy.deepcopy(ours)
    optimizer = SAM(sgd(ours), SharpnessAware(kind=kind, rho=0.3), ours)
    base = sgd(theirs)
    for number in range(10):
        train(ours, optimizer, 1, number)
        generator = torch.Generator().manual_seed(number)
        batch = torch.randn(32, 6, generator=generator)
        published_step(theirs, base, batch, torch.randint(0, 3, (32,), generator=generator), 0.3, kind == "asam")
        torch.testing.assert_close(flat(ours), flat(theirs), rtol=0, atol=1e-6)


@pytest.mark.parametrize("options", [{}, {"m": 8}, {"every": 3}, {"second_pass_batch": 0.5}, {"p": "inf", "rho": 0.01}])
def test_a_run_continues_from_its_packed_state(options):
    def fresh():
        net = network(0.3)
        return net, SAM(torch.optim.Adam(net.parameters(), 1e-2), SharpnessAware(kind="sam", **options), net)

    net, optimizer = fresh()
    train(net, optimizer, 4)
    arrays, meta = pack_training({"net": net}, {"opt": optimizer}, {})
    arrays = {name: array.copy() for name, array in arrays.items()}
    train(net, optimizer, 4, 4)
    other, resumed = fresh()
    unpack_training(arrays, meta, {"net": other}, {"opt": resumed}, {})
    train(other, resumed, 4, 4)
    assert torch.equal(flat(net), flat(other))
    assert resumed.steps == resumed.perturbed_steps == 8


def test_weights_come_back_exactly_and_buffers_and_random_state_as_after_one_pass():
    net, plain = network(0.5), network(0.5)
    optimizer = SAM(torch.optim.SGD(net.parameters(), 0.0), SharpnessAware(kind="sam", rho=2.0), net)
    before = [w.clone() for w in net.parameters()]
    batch = torch.randn(32, 6, generator=torch.Generator().manual_seed(5))
    masks = []
    net[3].register_forward_hook(lambda module, inputs, output: masks.append((inputs[0] != 0, output != 0)))

    def closure():
        optimizer.zero_grad()
        loss = net(batch).square().mean()
        loss.backward()
        return loss.detach()

    torch.manual_seed(9)
    optimizer.step(closure)
    after = torch.get_rng_state()
    torch.manual_seed(9)
    plain(batch)
    assert torch.equal(after, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(plain.buffers(), net.buffers(), strict=True))
    (active, kept), (active_again, kept_again) = masks
    both = active & active_again
    assert both.sum() > 100 and torch.equal(kept[both], kept_again[both]), "the same units are dropped in both passes"


def test_weights_come_back_after_an_exception():
    net = network()
    before = flat(net)
    optimizer = SAM(sgd(net), SharpnessAware(kind="sam", rho=1.0), net)
    calls = []

    def closure():
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("no memory")
        loss = next(net.parameters()).square().sum()
        loss.backward()
        return loss.detach()

    with pytest.raises(RuntimeError, match="no memory"):
        optimizer.step(closure)
    assert torch.equal(before, flat(net))


def test_clipping_acts_on_the_gradient_that_the_base_sees():
    w = weights(1.0, 1.0)
    module = nn.Module()
    module.weight = w
    optimizer = SAM(torch.optim.SGD([w], 1.0), SharpnessAware(kind="sam", rho=0.1), module, clip_norm=1.0)

    def closure():
        optimizer.zero_grad()
        loss = 0.5 * (QUADRATIC * w**2).sum()
        loss.backward()
        return loss.detach()

    optimizer.step(closure)
    clipped = torch.tensor([4.388057, 1.02425356], dtype=torch.float64)
    clipped /= clipped.norm()
    assert (1 - w).tolist() == pytest.approx(clipped.tolist(), abs=1e-5)


def test_decay_can_belong_to_the_perturbed_loss():
    """As the official code: L2 in the loss of both passes equals the option with the optimiser's decay."""
    penalised, decayed = network(), network()
    inside = SAM(torch.optim.SGD(penalised.parameters(), 0.1), SharpnessAware(kind="sam", rho=0.5), penalised)
    options = SharpnessAware(kind="sam", rho=0.5, decay_in_perturbation=True)
    outside = SAM(torch.optim.SGD(decayed.parameters(), 0.1, weight_decay=0.3), options, decayed)
    batch = torch.randn(32, 6, generator=torch.Generator().manual_seed(5))
    for net, optimizer, factor in ((penalised, inside, 0.15), (decayed, outside, 0.0)):
        for _ in range(3):

            def closure(net=net, optimizer=optimizer, factor=factor):
                optimizer.zero_grad()
                loss = net(batch).exp().mean() + factor * sum(w.square().sum() for w in net.parameters())
                loss.backward()
                return loss.detach()

            optimizer.step(closure)
    torch.testing.assert_close(flat(penalised), flat(decayed), rtol=1e-5, atol=1e-6)


def test_biases_and_norms_can_be_left_out():
    net = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4))
    optimizer = SAM(sgd(net), SharpnessAware(kind="sam", rho=1.0, include="weights_only"), net)
    seen = []

    def closure():
        seen.append([w.detach().clone() for w in net.parameters()])
        optimizer.zero_grad()
        loss = net(torch.arange(48.0).view(8, 6) % 5).exp().mean()
        loss.backward()
        return loss.detach()

    optimizer.step(closure)
    moved = [not torch.equal(a, b) for a, b in zip(*seen, strict=True)]
    assert moved == [True, False, False, False]


def test_passes_are_counted():
    for options, passes, perturbed in (({}, 12, 6), ({"every": 3}, 8, 6), ({"start_fraction": 0.5}, 9, 3)):
        net = network()
        optimizer = SAM(sgd(net), SharpnessAware(kind="sam", **options), net, total_steps=6)
        calls = []
        net[0].register_forward_hook(lambda *_, calls=calls: calls.append(1))
        train(net, optimizer, 6)
        assert (len(calls), optimizer.perturbed_steps) == (passes, perturbed)


def test_a_scaled_loss_gives_the_same_step_and_overflow_skips_it():
    plain, scaled = network(), network()
    options = SharpnessAware(kind="sam", rho=0.2, decay_in_perturbation=True)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    reference, optimizer = SAM(sgd(plain), options, plain), SAM(sgd(scaled), options, scaled, scaler=scaler)
    batch = torch.randn(32, 6, generator=torch.Generator().manual_seed(5))

    def close(net, opt, scale, factor=1.0):
        def closure():
            opt.zero_grad()
            loss = net(batch).square().mean() * factor
            scale(loss).backward()
            return loss.detach()

        return closure

    for _ in range(3):
        reference.step(close(plain, reference, lambda loss: loss))
        optimizer.step(close(scaled, optimizer, scaler.scale))
    torch.testing.assert_close(flat(plain), flat(scaled), rtol=1e-5, atol=1e-6)
    before = [w.clone() for w in scaled.parameters()]
    optimizer.step(close(scaled, optimizer, scaler.scale, float("inf")))
    assert all(torch.equal(a, b) for a, b in zip(before, scaled.parameters(), strict=True))
    assert scaler.get_scale() == 512.0


def test_what_cannot_be_is_refused():
    net = network()
    with pytest.raises(ValueError, match="start_fraction"):
        SAM(sgd(net), SharpnessAware(kind="sam", start_fraction=0.5), net)
    with pytest.raises(ValueError, match="closure"):
        SAM(sgd(net), SharpnessAware(), net).step()
    with pytest.raises(ValueError, match="samples"):
        SAM(sgd(net), SharpnessAware(kind="sam", m=4), net).step(lambda: torch.zeros(()))
    with pytest.raises(ValueError, match="every"):
        SharpnessAware(kind="sam", m=4, every=2)
    table = nn.Embedding(4, 2, sparse=True)
    optimizer = SAM(torch.optim.SGD(table.parameters(), 0.1), SharpnessAware(kind="sam"), table)

    def closure():
        optimizer.zero_grad()
        loss = table(torch.tensor([1, 2])).sum()
        loss.backward()
        return loss.detach()

    with pytest.raises(ValueError, match="sparse"):
        optimizer.step(closure)


def test_schedules_act_on_the_base():
    net = network()
    base = sgd(net)
    optimizer = SAM(base, SharpnessAware(kind="sam"), net)
    optimizer.param_groups[0]["lr"] = 0.025
    assert base.param_groups[0]["lr"] == 0.025
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 4)
    train(net, optimizer, 1)
    schedule.step()
    assert base.param_groups[0]["lr"] < 0.025
