"""The AUM statistic: the paper's arithmetic, the official package's numbers, and partial sums."""

import aum
import numpy as np
import pytest
import torch

from models.core.margins import Margins, NonFiniteLogitsError, margin
from models.core.run import LocalRun

Z = torch.tensor([[4.0, 1.0, 3.0]])


def one(logits, target, **options):
    return float(margin(torch.as_tensor(logits), torch.tensor([target]), **options))


def test_margin_is_the_assigned_logit_minus_the_best_other():
    assert one(Z, 0) == 1.0
    assert one(Z, 2) == -1.0
    assert one([[1.0, 2.0, 3.0]], 1) == -1.0
    assert one([[6.0, 5.0, 4.0]], 0) == 1.0
    assert one([[2.0, 2.0, 0.0]], 0) == 0.0


def test_margin_ignores_shifts_and_scales_with_the_logits():
    assert one(Z + 10, 0) == 1.0
    assert one(Z * 3, 0) == 3.0
    assert one(Z.log_softmax(1), 0) == pytest.approx(1.0, abs=1e-6)


def test_probability_margins_are_another_scale():
    assert one(Z, 0, kind="probability") == pytest.approx(0.4459, abs=5e-5)
    margins = Margins(1, kind="probability")
    margins.update(Z, torch.tensor([0]), torch.tensor([0]))
    assert float(margins.aum()) == pytest.approx(0.4459, abs=5e-5)


@pytest.mark.parametrize(("target", "expected"), [(1, 1.5), (0, -1.5)])
def test_one_logit_means_zero_and_z(target, expected):
    assert one([1.5], target) == expected
    assert one([[1.5]], target) == expected
    assert one([[0.0, 1.5]], target) == expected


def test_aum_is_the_mean_over_counted_epochs():
    def aum_of(values):
        margins = Margins(1)
        for value in values:
            margins.update(torch.tensor([[value, 0.0]]), torch.tensor([0]), torch.tensor([0]))
        return float(margins.aum())

    assert aum_of([-1.0, 2.0, 5.0]) == 2.0
    assert aum_of([9.0, -1.0, 2.0, 5.0]) == 3.75


def updates(seed, samples=40, classes=7, epochs=5, batch=8):
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randint(0, classes, (samples,), generator=generator)
    for _ in range(epochs):
        for indices in torch.split(torch.randperm(samples, generator=generator), batch):
            yield 5 * torch.randn(len(indices), classes, generator=generator), targets[indices], indices


def test_equals_the_official_package(tmp_path):
    ours, official = Margins(40), aum.AUMCalculator(str(tmp_path))
    for logits, targets, indices in updates(0):
        ours.update(logits, targets, indices)
        official.update(logits, targets, indices.tolist())
    theirs = [official.sums[i] / official.counts[i] for i in range(40)]
    np.testing.assert_allclose(ours.aum().numpy(), theirs, atol=1e-6, rtol=0)
    assert ours.counts.tolist() == [official.counts[i] for i in range(40)] == [5] * 40


def test_a_batch_of_one_sample_counts():
    margins = Margins(1, 3)
    margins.update(Z, torch.tensor([0]), torch.tensor([0]))
    assert (float(margins.aum()), float(margins.last)) == (1.0, 1.0)
    assert margins.logit_sums.tolist() == [[4.0, 1.0, 3.0]]


def test_order_of_updates_does_not_matter():
    batches = list(updates(1))
    forward, backward = Margins(40, 7), Margins(40, 7)
    for batch in batches:
        forward.update(*batch)
    for batch in reversed(batches):
        backward.update(*batch)
    torch.testing.assert_close(forward.sums, backward.sums, atol=1e-9, rtol=0)


def test_merged_and_restored_parts_equal_one_pass():
    batches = list(updates(2))
    whole, first, second, resumed = Margins(40, 7), Margins(40, 7), Margins(40, 7), Margins(40, 7)
    for batch in batches:
        whole.update(*batch)
    for batch in batches[:11]:
        first.update(*batch)
    resumed.load_state(*first.state())
    for batch in batches[11:]:
        second.update(*batch)
        resumed.update(*batch)
    first.merge(second)
    for part in (first, resumed):
        torch.testing.assert_close(part.aum(), whole.aum(), atol=1e-9, rtol=0)
        assert part.counts.tolist() == whole.counts.tolist()
        torch.testing.assert_close(part.logit_sums, whole.logit_sums)
        assert part.last.tolist() == whole.last.tolist()


def test_diverged_training_is_refused():
    for bad in (float("nan"), float("inf")):
        margins = Margins(3)
        margins.update(torch.tensor([[0.0, 1.0]]), torch.tensor([0]), torch.tensor([0]))
        margins.update(torch.tensor([[bad, 1.0]]), torch.tensor([0]), torch.tensor([2]))
        with pytest.raises(NonFiniteLogitsError, match="sample 2 are not finite"):
            margins.aum()


def test_samples_that_were_never_seen_have_no_aum():
    margins = Margins(2)
    margins.update(Z, torch.tensor([0]), torch.tensor([1]))
    assert margins.aum().isnan().tolist() == [True, False]


def test_trajectories_keep_each_epoch_and_never_overflow():
    margins = Margins(2, epochs=3)
    margins.update(torch.tensor([[1e6, 0.0]]), torch.tensor([0]), torch.tensor([1]), epoch=1)
    assert float(margins.trajectory[1, 1]) == 65504.0
    assert bool(margins.trajectory[0].isnan().all())
    assert float(margins.sums[1]) == 1e6


def test_any_trainer_can_leave_its_margins_as_an_artifact(tmp_path):
    margins = Margins(2)
    margins.update(Z, torch.tensor([0]), torch.tensor([1]))
    margins.save(LocalRun(tmp_path))
    with np.load(tmp_path / "margins.npz") as archive:
        assert archive["measurements"].tolist() == [0, 1]
        assert archive["aum"][1] == 1.0
