"""The ensemble takes the steps of the optimiser that every trainer uses."""

import pytest
import torch

from models.core.classifiers import build_classifier
from models.core.run import LocalRun
from models.core.supervised import Recipe, fit_classifier
from models.core.trainer_options import SharpnessAware
from models.sam.ensemble import Ensemble, Member, Schedule, Steps

ROWS, CLASSES, CPU, PLAIN = 120, 3, torch.device("cpu"), Steps()


def data(seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(ROWS) % CLASSES
    return torch.randn(ROWS, 6, generator=generator) + 2 * torch.eye(6)[labels], labels


def untrained(seed, inputs):
    torch.manual_seed(seed)
    return build_classifier("mlp", inputs, CLASSES)


def member(steps=PLAIN, seed=0):
    inputs, labels = data(seed)
    return Member(untrained(seed, inputs), inputs, labels, seed, steps)


def trained(members, schedule):
    ensemble = Ensemble(members, schedule, CPU)
    for _ in range(schedule.epochs):
        ensemble.epoch()
    return ensemble


@pytest.mark.parametrize("m", [None, 10])
def test_a_member_is_the_classifier_that_the_trainer_gives(m, tmp_path):
    rhos, schedule = (0.0, 0.2, 0.05), Schedule(3, batch_size=30, m=m)
    found = trained([member(Steps(rho), seed) for seed, rho in enumerate(rhos)], schedule).networks()
    for seed, (rho, network) in enumerate(zip(rhos, found, strict=True)):
        inputs, labels = data(seed)
        options = SharpnessAware(kind="sam" if rho else "none", rho=rho or None, m=m)
        recipe = Recipe(epochs=3, batch_size=30, learning_rate=0.05, sharpness_aware=options)
        build = lambda inputs=inputs: build_classifier("mlp", inputs, CLASSES)  # noqa: E731
        alone = fit_classifier(build, inputs, labels, recipe, LocalRun(tmp_path / str(seed)), seed=seed).network
        for name, weight in network.state_dict().items():
            assert torch.allclose(weight, alone.state_dict()[name], atol=2e-5), (rho, name)


def test_a_random_direction_is_no_gradient_and_moves_by_the_radius():
    ensemble = Ensemble([member(Steps(0.2, random=True)), member(Steps(0.2))], Schedule(1, batch_size=30), CPU)
    seen = []
    inner = ensemble._gradients

    def watched(weights, *rest):
        seen.append(weights)
        return inner(weights, *rest)

    ensemble._gradients = watched
    ensemble.epoch()
    before, moved = seen[0], seen[1]
    start, first = untrained(0, data()[0]).state_dict(), {}
    for index in range(2):
        offsets = [moved[name][index] - start[name] for name in before]
        assert float(torch.nn.utils.get_total_norm(offsets)) == pytest.approx(0.2, rel=1e-4)
        first[index] = torch.cat([offset.flatten() for offset in offsets])
    assert abs(float(torch.cosine_similarity(first[0], first[1], dim=0))) < 0.1


def test_smoothed_targets_mixed_samples_and_averages():
    inputs, labels = data()
    options = (Steps(smoothing=0.1), Steps(mixup=0.2), Steps(average=0.5), Steps())
    ensemble = Ensemble([member(steps) for steps in options], Schedule(2, batch_size=30), CPU)
    ensemble.share.copy_(ensemble.mixing[0])
    ensemble.rows.copy_(torch.arange(30).expand(4, 30))
    rows, targets = ensemble._batch()
    hot = torch.nn.functional.one_hot(labels[:30], CLASSES).float()
    share = float(ensemble.mixing[0, 1])
    assert 0 < share < 1 and torch.equal(targets[3], hot) and torch.equal(rows[3], inputs[:30])
    assert torch.allclose(targets[0], 0.9 * hot + 0.1 / CLASSES)
    assert torch.allclose(targets[1], share * hot + (1 - share) * hot.roll(1, 0))
    assert torch.allclose(rows[1], share * inputs[:30] + (1 - share) * inputs[:30].roll(1, 0))
    for _ in range(2):
        ensemble.epoch()
    kept, weights = ensemble.kept(), ensemble.weights
    for name in weights:
        assert torch.equal(kept[name][3], weights[name][3]) and torch.equal(weights[name][2], weights[name][3])
        assert not torch.equal(kept[name][2], weights[name][2])
    accuracies = ensemble.accuracies(inputs, labels)
    for accuracy, network in zip(accuracies, ensemble.networks(), strict=True):
        with torch.no_grad():
            assert float(accuracy) == pytest.approx(float((network(inputs).argmax(1) == labels).double().mean()))
    assert float(accuracies.min()) > 0.8


def test_batches_divide_the_samples():
    with pytest.raises(ValueError, match="no whole number of batches"):
        Ensemble([member()], Schedule(1, batch_size=50), CPU)
