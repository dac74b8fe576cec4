import numpy as np
import pytest
import torch

from models.aum.fit import Schedule, crop_and_flip, fit, ordinary_schedule
from models.aum.network import Classifier
from models.aum.stages import Stages
from models.core.margins import Margins, NonFiniteLogitsError
from models.core.run import LocalRun


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


def test_crops_are_windows_of_the_padded_picture_or_its_mirror_image():
    image = torch.arange(1, 31, dtype=torch.uint8).view(1, 1, 5, 6).repeat(64, 1, 1, 1)
    views = crop_and_flip(image, torch.Generator().manual_seed(0))
    padded = np.pad(image[0, 0].numpy(), 4)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (5, 6)).reshape(-1, 5, 6)
    allowed = {window.tobytes() for window in windows} | {window[:, ::-1].tobytes() for window in windows}
    drawn = {view[0].numpy().tobytes() for view in views}
    assert views.shape == image.shape and views.dtype == torch.uint8
    assert drawn <= allowed and len(drawn) > 20


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
