"""Ground costs against scipy, in blocks and whole, near and far from the origin."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from models.core.transport.costs import GroundCost, LabelCost, ground_cost, squared_distances


def clouds(seed, n=37, m=23, d=5, shift=0.0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)) + shift, rng.normal(size=(m, d)) + shift


@given(seed=st.integers(0, 999), p=st.sampled_from([1, 2]), d=st.integers(1, 9), shift=st.sampled_from([0, 1e3, 1e6]))
@settings(deadline=None, max_examples=40)
def test_powers_of_euclidean_distances_wherever_the_origin_is(seed, p, d, shift):
    x, y = clouds(seed, d=d, shift=shift)
    expected = cdist(x, y) ** p
    np.testing.assert_allclose(ground_cost(x, y, p=p), expected, rtol=1e-8, atol=1e-9)


def test_equal_points_are_at_distance_zero_exactly():
    x, _ = clouds(0, d=300)
    x[5] = x[9]
    cost = ground_cost(x, x)
    assert (np.diag(cost) == 0).all() and cost[5, 9] == 0 and (cost >= 0).all()
    near = x + 1e-7
    np.testing.assert_allclose(np.diag(squared_distances(*map(torch.from_numpy, (x, near)))), 3e-12, rtol=1e-6)


def test_cosine_is_one_minus_the_cosine():
    x, y = clouds(1)
    np.testing.assert_allclose(ground_cost(x, y, p=1, metric="cosine"), cdist(x, y, "cosine"), atol=1e-12)
    np.testing.assert_allclose(ground_cost(x, y, p=2, metric="cosine"), cdist(x, y, "cosine") ** 2, atol=1e-12)
    x[3] = 0
    assert (ground_cost(x, y, p=1, metric="cosine")[3] == 1).all()


def test_labels_add_their_table_and_the_scale_weighs_the_features():
    x, y = map(torch.from_numpy, clouds(2))
    rows, columns = torch.arange(37) % 3, torch.arange(23) % 2
    table = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]], dtype=torch.float64)
    cost = GroundCost(x, y, scale=0.5, labels=LabelCost(rows, columns, table))
    expected = 0.5 * cdist(x, y) ** 2 + table[rows][:, columns].numpy()
    np.testing.assert_allclose(cost.numpy(), expected, rtol=1e-12)
    only = GroundCost(x, y, scale=0.0, labels=LabelCost(rows, columns, table))
    assert torch.equal(only.dense(), table[rows][:, columns])


def test_blocks_are_rows_of_the_whole(monkeypatch):
    x, y = map(torch.from_numpy, clouds(3))
    cost = GroundCost(x, y, p=1)
    whole = cost.dense()
    assert cost.shape == whole.shape == (37, 23)
    torch.testing.assert_close(cost.block(5, 11), whole[5:11], rtol=1e-12, atol=0)
    monkeypatch.setattr("models.core.transport.costs._BLOCK_ENTRIES", 50)
    torch.testing.assert_close(cost.dense(), whole, rtol=1e-12, atol=0)
    assert cost.dense(torch.float32).dtype == torch.float32


def test_what_cannot_be_compared_is_named():
    x, y = map(torch.from_numpy, clouds(4))
    with pytest.raises(ValueError, match="points of 4 numbers cannot be compared with 5"):
        GroundCost(x, y[:, :4])
    with pytest.raises(ValueError, match=r"labels of side b must lie in 0\.\.1"):
        LabelCost(torch.tensor([0]), torch.tensor([2]), torch.zeros(1, 2))
    with pytest.raises(ValueError, match=r"labels of side a must lie in 0\.\.0"):
        LabelCost(torch.tensor([-1]), torch.tensor([1]), torch.zeros(1, 2))
