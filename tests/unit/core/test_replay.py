import torch

from models.core.replay import UNRECORDED, Replayed


def test_without_a_gpu_a_step_is_called():
    calls = []
    step = Replayed(lambda: calls.append(1), torch.device("cpu"), torch.Generator())
    for _ in range(UNRECORDED + 3):
        step()
    assert len(calls) == UNRECORDED + 3
