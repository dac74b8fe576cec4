import numpy as np
import pytest
import torch

from models.aum.fit import Schedule, Watch, fit, ordinary_schedule
from models.aum.network import Classifier
from models.aum.stages import Stages
from models.core.margins import Margins, NonFiniteLogitsError
from models.core.run import LocalRun
from models.core.trainer_options import EarlyStopping, SharpnessAware


def separable(samples):
    generator = torch.Generator().manual_seed(0)
    targets = torch.arange(samples) % 3
    return torch.randn(samples, 4, generator=generator) + 4 * torch.eye(4)[targets], targets


def mlp():
    return Classifier("mlp", (4,), 3, torch.zeros(4), torch.ones(4))


@pytest.mark.parametrize("samples", [65, 129, 64, 3])
def test_every_sample_is_counted_each_epoch_even_alone_in_the_last_batch(samples, tmp_path):
    inputs, targets = separable(samples)
    margins = Margins(samples, 3)
    stages = Stages(LocalRun(tmp_path), {"a": 1.0})
    fit(stages, "a", mlp, inputs, targets, Schedule(3, 64, 0.1, 0.0), seed=0, margins=margins, skip_epochs=1)
    assert margins.counts.tolist() == [2] * samples


def test_margins_are_recorded_without_touching_the_training(tmp_path):
    inputs, targets = separable(90)
    weights = []
    for number, margins in enumerate((None, Margins(90, 3))):
        stages = Stages(LocalRun(tmp_path / str(number)), {"a": 1.0})
        network = fit(stages, "a", mlp, inputs, targets, Schedule(2, 16, 0.1, 1e-4), seed=7, margins=margins)
        weights.append(torch.nn.utils.parameters_to_vector(network.parameters()))
    assert torch.equal(*weights)


def test_training_leaves_the_global_generator_alone(tmp_path):
    inputs, targets = separable(30)
    before = torch.get_rng_state()
    fit(Stages(LocalRun(tmp_path), {"a": 1.0}), "a", mlp, inputs, targets, Schedule(2, 8, 0.1, 0.0), seed=1)
    assert torch.equal(before, torch.get_rng_state())


def test_divergence_stops_with_a_clear_error(tmp_path):
    inputs, targets = separable(64)
    stages = Stages(LocalRun(tmp_path), {"a": 1.0})
    with pytest.raises(NonFiniteLogitsError, match="lower the learning rate"):
        fit(stages, "a", mlp, inputs * float("inf"), targets, Schedule(2, 8, 0.1, 0.0), seed=0, margins=Margins(64))


def test_learning_rate_is_constant_or_drops_at_half_and_three_quarters():
    constant = Schedule(8, 64, 0.1, 1e-4)
    assert {constant.rate(epoch) for epoch in range(8)} == {0.1}
    ordinary = ordinary_schedule(constant)
    rates = [ordinary.rate(epoch) for epoch in range(16)]
    assert rates == pytest.approx([0.1] * 8 + [0.01] * 4 + [0.001] * 4)


def test_finished_stages_are_not_run_again_and_progress_never_falls(tmp_path):
    fractions = []
    stages = Stages(LocalRun(tmp_path, report=lambda fraction, *_: fractions.append(fraction)), {"a": 1.0, "b": 3.0})
    stages.finish("a", {"x": np.arange(3)})
    stages.save("b", {"y": np.ones(2)}, {"epoch": 4})
    again = Stages(LocalRun(tmp_path), {"a": 1.0, "b": 3.0})
    assert again.result("a")["x"].tolist() == [0, 1, 2] and again.result("b") is None
    assert again.resume_point("a") is None
    arrays, facts = again.resume_point("b")
    assert arrays["y"].tolist() == [1, 1] and facts == {"epoch": 4}
    stages.advance("b", 0.5, "half")
    assert fractions == [pytest.approx(0.97 * 2.5 / 4)]


def vector(network):
    return torch.nn.utils.parameters_to_vector(network.parameters())


def trained(folder, schedule, *, run=None, **options):
    inputs, targets = separable(65)
    stages = Stages(run or LocalRun(folder), {"a": 1.0})
    return fit(stages, "a", mlp, inputs, targets, schedule, seed=3, **options)


def test_sharpness_aware_steps_are_those_of_the_gradient_at_the_worst_weights(tmp_path):
    """One full-batch step by hand: perturb, take the gradient there, step from the start."""
    inputs, targets = separable(65)
    options = SharpnessAware(kind="sam", rho=0.5)
    found = trained(tmp_path, Schedule(1, 65, 0.1, 0.0, sharpness_aware=options))
    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = mlp()
    start = vector(network).detach().clone()
    order = torch.randperm(65, generator=torch.Generator().manual_seed(3))

    def gradient(at):
        torch.nn.utils.vector_to_parameters(at, network.parameters())
        loss = torch.nn.functional.cross_entropy(network(inputs[order]), targets[order])
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(network.parameters()))])

    first = gradient(start)
    there = gradient(start + 0.5 * first / first.norm())
    expected = start - 0.1 * (there + 0.9 * there)  # Nesterov's first step
    torch.testing.assert_close(vector(found).detach(), expected, rtol=1e-4, atol=1e-6)


def test_without_options_the_training_is_the_plain_one(tmp_path):
    plain = trained(tmp_path / "a", Schedule(3, 16, 0.1, 1e-4))
    zero = trained(tmp_path / "b", Schedule(3, 16, 0.1, 1e-4, sharpness_aware=SharpnessAware(kind="sam", rho=0.0)))
    sharp = trained(tmp_path / "c", Schedule(3, 16, 0.1, 1e-4, sharpness_aware=SharpnessAware(kind="sam")))
    assert torch.equal(vector(plain), vector(zero)) and not torch.equal(vector(plain), vector(sharp))


def test_early_stopping_keeps_the_weights_of_the_chosen_epoch(tmp_path):
    inputs, targets = separable(30)
    watch = Watch(EarlyStopping(patience=2, min_epochs=2, smoothing=1), inputs, targets)
    stopped = trained(tmp_path / "a", Schedule(50, 16, 0.1, 1e-4), watch=watch)
    chosen, trained_epochs = watch.stopper.chosen, len(watch.stopper.curve)
    assert 2 <= chosen < trained_epochs == watch.stopper.stopped_at == chosen + 2
    kept = EarlyStopping(rule="fixed", epochs=chosen, min_epochs=1, continue_to_end=True)
    again = Watch(kept, inputs[:0], targets[:0])
    same = trained(tmp_path / "b", Schedule(50, 16, 0.1, 1e-4), watch=again)
    assert torch.equal(vector(stopped), vector(same)) and len(again.stopper.curve) == 50
    last = torch.cat([again.last[name].flatten() for name, _ in same.named_parameters()])
    assert not torch.equal(last, vector(same))


class _KilledError(Exception):
    pass


def test_a_killed_training_with_both_options_ends_as_an_undisturbed_one(tmp_path):
    inputs, targets = separable(30)
    schedule = Schedule(9, 16, 0.1, 1e-4, sharpness_aware=SharpnessAware(kind="sam", every=2))

    def train(folder, kill_after=0):
        run, left = LocalRun(tmp_path / folder), [kill_after]
        save = run.save_state

        def saving(tensors, meta):
            save(tensors, meta)
            left[0] -= 1
            if left[0] == 0:
                raise _KilledError

        run.save_state = saving
        watch = Watch(EarlyStopping(patience=3, min_epochs=2, rule="label-wave", smoothing=1), inputs[:0], targets[:0])
        return vector(trained(tmp_path, schedule, run=run, watch=watch)), watch.stopper.curve

    whole, curve = train("whole")
    with pytest.raises(_KilledError):
        train("cut", kill_after=3)
    resumed, again = train("cut")
    assert torch.equal(whole, resumed) and curve == again
