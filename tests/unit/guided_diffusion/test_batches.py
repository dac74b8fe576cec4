import pytest
import torch

from models.guided_diffusion.batches import filled, least_batch

STEP = torch.zeros(1, dtype=torch.long)


@pytest.mark.parametrize("least", [1, 2, 4, 8])
def test_the_smallest_batch_that_rounds_like_a_large_one_is_found(least):
    def network(x, t):
        return x + (1e-6 if len(x) < least else 0.0)

    assert least_batch(network, (1, 4, 4), STEP) == least


def test_a_difference_in_the_middle_counts():
    def network(x, t):
        return x + (1e-6 if len(x) == 5 else 0.0)

    assert least_batch(network, (1, 4, 4), STEP) == 6


def test_rows_are_repeated_in_turn_and_large_batches_stay():
    rows = torch.arange(6).view(3, 2)
    assert filled(rows, 5).tolist() == [[0, 1], [2, 3], [4, 5], [0, 1], [2, 3]]
    assert filled(rows, 3) is rows
