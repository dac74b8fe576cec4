"""Networks that are trained side by side are those that would have been trained alone."""

import numpy as np
import pytest
import torch

from models.aum.fit import Schedule, fit
from models.aum.network import Classifier
from models.aum.side_by_side import Member, Passes, fit_side_by_side
from models.aum.stages import Stages
from models.core.margins import Margins, NonFiniteLogitsError
from models.core.run import LocalRun

SAMPLES, CLASSES = 70, 3
SCHEDULE = Schedule(4, 16, 0.05, 1e-3, decay=True)
INPUTS = torch.randint(0, 256, (2 * SAMPLES, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def network(outputs=CLASSES):
    return Classifier("small-cnn", (1, 8, 8), outputs, torch.full((1, 1, 1), 127.0), torch.full((1, 1, 1), 74.0))


def labels(seed):
    return torch.randint(0, CLASSES, (SAMPLES,), generator=torch.Generator().manual_seed(seed))


def alone(folder, first, targets, seed, margins=None):
    stages = Stages(LocalRun(folder), {"a": 1.0})
    inputs = INPUTS[first : first + SAMPLES]
    return fit(stages, "a", network, inputs, targets, SCHEDULE, seed=seed, margins=margins, skip_epochs=1)


def test_each_member_is_the_network_trained_alone_with_the_same_margins(tmp_path):
    settings = [(0, labels(1), 5), (SAMPLES, labels(2), 6), (0, labels(3), 7)]
    everything = torch.arange(SAMPLES)
    members = [Member(network, first, targets, everything, seed) for first, targets, seed in settings]
    passes, done = Passes(3, SAMPLES, CLASSES, torch.device("cpu")), []
    networks = fit_side_by_side(INPUTS, members, SCHEDULE, done.append, passes, skip_epochs=1)
    assert done == [0.25, 0.5, 0.75, 1.0]
    for number, ((first, targets, seed), result) in enumerate(zip(settings, passes.split(), strict=True)):
        margins = Margins(SAMPLES, CLASSES)
        expected = alone(tmp_path / str(number), first, targets, seed, margins).state_dict()
        for name, tensor in networks[number].state_dict().items():
            torch.testing.assert_close(tensor, expected[name], rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(result["aum"], margins.aum().numpy(), rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(result["last"], margins.last.numpy(), rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(result["logit_sums"], margins.logit_sums.numpy(), rtol=1e-3, atol=1e-2)
    assert not networks[0].training


def test_a_member_with_fewer_samples_makes_as_many_steps_on_full_batches():
    everything, half = torch.arange(SAMPLES), torch.arange(0, SAMPLES, 2)
    passes = Passes(2, SAMPLES, CLASSES, torch.device("cpu"))
    members = [Member(network, 0, labels(1), chosen, 0) for chosen in (everything, half)]
    fit_side_by_side(INPUTS, members, SCHEDULE, lambda done: None, passes)
    counts = passes.margins.counts.view(2, SAMPLES)
    assert counts[0].tolist() == [4] * SAMPLES
    assert counts[1, 1::2].eq(0).all() and counts[1, half].tolist() == [8] * 35


def test_one_alone_is_trained_bit_for_bit_as_by_fit(tmp_path):
    inputs, targets, margins = INPUTS[:SAMPLES], labels(1), Margins(SAMPLES, CLASSES)
    passes = Passes(1, SAMPLES, CLASSES, torch.device("cpu"))
    member = Member(network, 0, targets, torch.arange(SAMPLES), 5)
    (found,) = fit_side_by_side(inputs, [member], SCHEDULE, lambda done: None, passes, skip_epochs=1)
    expected = alone(tmp_path, 0, targets, 5, margins).state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.state_dict().items())
    assert np.array_equal(passes.split()[0]["aum"], margins.aum().numpy())


def test_probabilities_are_means_over_the_passes():
    passes = Passes(2, 2, 2, torch.device("cpu"))
    targets, positions = torch.tensor([[0, 1], [1, 0]]), torch.tensor([[0, 1], [1, 0]])
    for odds in (3.0, 1.0):
        passes.update(torch.tensor([[odds, 1.0]] * 2).log().expand(2, 2, 2), targets, positions)
    first, second = passes.split()
    assert first["probability"] == pytest.approx([(0.75 + 0.5) / 2, (0.25 + 0.5) / 2])
    assert second["probability"] == pytest.approx([(0.75 + 0.5) / 2, (0.25 + 0.5) / 2])
    assert first["aum"] == pytest.approx([np.log(3) / 2, -np.log(3) / 2])


def test_divergence_stops_with_a_clear_error():
    member = Member(network, 0, labels(1), torch.arange(SAMPLES), 0)
    with pytest.raises(NonFiniteLogitsError, match="lower the learning rate"):
        fit_side_by_side(INPUTS, [member], Schedule(2, 16, 1e12, 0.0), lambda done: None)
