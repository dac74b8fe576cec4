"""Early stopping: which epoch is chosen by each rule, what is restored, and what noisy accuracy says."""

import numpy as np
import pytest
import torch
from torch import nn

from models.core.dataset import Dataset
from models.core.early_stopping import (
    EarlyStopper,
    effective_rate,
    estimated_clean_accuracy,
    noisy_accuracy,
    relative_distance,
    replay,
    validation_split,
)
from models.core.trainer_options import EarlyStopping


def module():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


def watch(curve, **options):
    """Run over a curve of accuracies; the weights of epoch e are all e."""
    net = module()
    stopper = EarlyStopper(EarlyStopping(**options), net, validation_samples=100)
    for epoch, accuracy in enumerate(curve, start=1):
        for tensor in net.state_dict().values():
            tensor.fill_(epoch)
        if stopper.update(accuracy=accuracy):
            break
    return stopper, net


CASES = [
    ([0.1, 0.5, 0.6, 0.55, 0.5, 0.4, 0.3], {"patience": 2, "smoothing": 1}, 3, 5),
    ([0.1, 0.5, 0.6, 0.6, 0.6, 0.6], {"patience": 2, "smoothing": 1}, 3, 5),  # ties keep the earlier, and are no gain
    ([0.9, 0.5, 0.6, 0.5, 0.4], {"patience": 2, "smoothing": 1, "min_epochs": 2}, 3, 5),
    (
        [0.5, 0.9, 0.5, 0.6, 0.7, 0.6, 0.5, 0.4],
        {"patience": 3, "smoothing": 3, "min_epochs": 1},
        1,
        4,
    ),  # medians .7 .5 .6 .6
    ([0.5, 0.2, 0.6, 0.61, 0.60, 0.59], {"patience": 5, "smoothing": 3}, 3, None),  # one bad epoch is smoothed away
    ([0.1, 0.5, 0.58, 0.6, 0.6, 0.59], {"patience": 2, "smoothing": 1, "one_standard_error": True}, 3, 6),
    ([0.1, 0.5, 0.6, 0.5, 0.5, 0.7], {"patience": 2, "smoothing": 1, "restore": "last"}, 5, 5),
    ([0.1, 0.2, 0.3, 0.4], {"patience": 2, "smoothing": 1}, 4, None),
]


@pytest.mark.parametrize(("curve", "options", "chosen", "stopped"), CASES)
def test_the_chosen_epoch_comes_back_bit_for_bit(curve, options, chosen, stopped):
    stopper, net = watch(curve, **options)
    assert stopper.stopped_at == stopped
    assert stopper.restore() == stopper.chosen == chosen
    assert all((tensor == chosen).all() for tensor in net.state_dict().values())


def test_few_weights_are_kept_and_the_choice_is_that_of_the_whole_curve():
    generator = np.random.default_rng(0)
    for _ in range(50):
        curve = generator.integers(0, 30, 40) / 30
        for options in (
            {"smoothing": 1}, {"smoothing": 5}, {"smoothing": 3, "one_standard_error": True}, {"min_epochs": 7}
        ):  # fmt: skip
            stopper, net = watch(curve, patience=40, **options)
            scores = stopper.scores()
            best = scores.max()
            tolerance = np.sqrt(best * (1 - best) / 100) if "one_standard_error" in options else 0
            assert stopper.restore() == int(np.argmax(scores >= best - tolerance)) + 1
            assert float(net[0].weight.detach()[0, 0]) == stopper.chosen


def test_continuing_to_the_end_does_not_change_the_choice():
    curve = [0.1, 0.5, 0.6, 0.5, 0.5, 0.9, 0.95]
    stopped, _ = watch(curve, patience=2, smoothing=1)
    stopper, net = watch(curve, patience=2, smoothing=1, continue_to_end=True)
    assert len(stopped.curve) == 5 and len(stopper.curve) == 7
    assert stopper.stopped_at == stopped.stopped_at == 5
    assert stopper.restore() == stopped.chosen == 3 and float(net[0].weight.detach()[0, 0]) == 3


def test_distance_and_fixed_rules():
    stopper, net = watch([None] * 9, rule="distance", distance_budget=6.0, min_epochs=1)
    distances = [row["relative_distance"] for row in stopper.curve]
    assert distances[-1] > 6.0 >= distances[-2]
    assert stopper.restore() == len(distances) - 1 == int(net[0].weight.detach()[0, 0])
    stopper, net = watch([None] * 9, rule="fixed", epochs=4)
    assert (stopper.stopped_at, stopper.restore(), int(net[0].weight.detach()[0, 0])) == (4, 4, 4)


def test_label_wave_keeps_the_first_minimum_of_changes():
    stopper = EarlyStopper(EarlyStopping(rule="label-wave", patience=2, smoothing=1), module())
    wave, stopped = [9, 5, 2, 4, 6, 1], []
    predictions = torch.zeros(10, dtype=torch.int64)
    stopped.append(stopper.update(predictions=predictions))
    for number, count in enumerate(wave, start=1):
        predictions = predictions.clone()
        predictions[:count] = number
        stopped.append(stopper.update(predictions=predictions))
        if stopped[-1]:
            break
    assert [row["changed"] for row in stopper.curve] == [None, 0.9, 0.5, 0.2, 0.4, 0.6]
    assert stopper.chosen == 4 and stopped == [False] * 5 + [True]


def test_it_continues_from_its_state():
    curve = [0.1, 0.5, 0.6, 0.55, 0.7, 0.5, 0.5, 0.5]
    whole, net = watch(curve, patience=3)
    first, other = watch(curve[:4], patience=3)
    arrays, facts = first.state()
    again = EarlyStopper(EarlyStopping(patience=3), other, 100)
    again.load_state(arrays, facts)
    for epoch, accuracy in enumerate(curve[4:], start=5):
        for tensor in other.state_dict().values():
            tensor.fill_(epoch)
        if again.update(accuracy=accuracy):
            break
    assert again.curve == whole.curve and again.restore() == whole.restore()
    assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), other.state_dict().values(), strict=True))


def test_distance_leaves_biases_and_statistics_out():
    start = {"w": torch.tensor([[3.0, 4.0]]), "bias": torch.ones(2), "count": torch.tensor(1)}
    now = {"w": torch.tensor([[3.0, 5.0]]), "bias": torch.zeros(2), "count": torch.tensor(9)}
    assert relative_distance(start, now) == pytest.approx(0.2)


def test_noisy_accuracy_tells_clean_accuracy():
    assert noisy_accuracy(0.8, 0.4, 10) == pytest.approx(0.4888889, abs=1e-7)
    assert estimated_clean_accuracy(0.4888889, 0.4, 10) == pytest.approx(0.8, abs=1e-6)
    for rate, classes in ((0.9, 10), (0.5, 2), (0.95, 10)):
        with pytest.raises(ValueError, match="noise_rate"):
            estimated_clean_accuracy(0.3, rate, classes)
    assert effective_rate(0.5, 10) == pytest.approx(0.45)


def test_the_split_is_by_class_and_keeps_copies_together():
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(400, 3)).astype(np.float32)
    vectors[200:] = vectors[:200]
    labels = np.repeat([0, 1, 0, 1], 100)
    labels[:50] = 1  # copies with another label
    training, held = validation_split(Dataset("vectors", vectors, labels, ["a", "b"]), 0.2, 1)
    assert sorted([*training, *held]) == list(range(400)) and len(held) == 80
    assert {tuple(v) for v in vectors[training]}.isdisjoint({tuple(v) for v in vectors[held]})
    again = validation_split(Dataset("vectors", vectors, labels, ["a", "b"]), 0.2, 1)[1]
    assert np.array_equal(held, again)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"rule": "distance"}, "distance_budget"),
        ({"rule": "fixed"}, "epochs"),
        ({"rule": "label-wave", "one_standard_error": True}, "one_standard_error"),
        ({"patience": 0}, "patience"),
        ({"smoothing": 2}, "smoothing"),
    ],
)
def test_options_that_do_not_fit_are_named(options, field):
    with pytest.raises(ValueError, match=field):
        EarlyStopping(**options)


def test_what_a_rule_needs_must_be_given():
    with pytest.raises(ValueError, match="accuracy"):
        EarlyStopper(EarlyStopping(), module()).update()
    with pytest.raises(ValueError, match="predictions"):
        EarlyStopper(EarlyStopping(rule="label-wave"), module()).update()


def test_the_rule_replayed_on_a_finished_curve_keeps_the_same_epoch():
    curve = [0.3, 0.5, 0.52, 0.51, 0.5, 0.49, 0.48, 0.47, 0.6, 0.62, 0.61]
    assert replay(EarlyStopping(patience=3, smoothing=1), curve, 1000) == 3
    assert replay(EarlyStopping(patience=11, smoothing=1), curve, 1000) == 10
    assert replay(EarlyStopping(patience=11, smoothing=1, one_standard_error=True), curve, 1000) == 10
    assert replay(EarlyStopping(patience=11, smoothing=1, one_standard_error=True), curve, 500) == 9
