"""On a CUDA device: the answers of the CPU, and a pretraining whose steps are recorded and replayed."""

import numpy as np
import pytest
import torch

from models.core.outputs import Sides
from models.otdd.distance import otdd
from models.otdd.pretraining import pretrain, target_error
from models.otdd.schema import Params
from models.otdd.variants import cloud, original
from tests.unit.cuda import needs_cuda

pytestmark = needs_cuda
CUDA, CPU = torch.device("cuda"), torch.device("cpu")


@pytest.mark.parametrize("solver", ["exact", "sinkhorn", "sinkhorn-divergence"])
def test_distances_are_those_of_the_cpu(solver):
    sides = Sides(cloud(original("digits", 200, 0)), cloud(original("fashion-mnist", 200, 0, split="test")))
    there, here = (otdd(sides, Params(solver=solver), device) for device in (CUDA, CPU))
    assert there.distance == pytest.approx(here.distance, rel=1e-4)
    np.testing.assert_allclose(there.details["class_coupling"], here.details["class_coupling"], atol=1e-3)


def test_pretraining_learns_and_helps():
    digits = original("digits", 2400, 0)
    source, few, test = digits.select(range(1000)), digits.select(range(1000, 1400)), digits.select(range(1400, 2400))
    scratch = target_error(few, test, 10, 0, CUDA)
    assert scratch == pytest.approx(target_error(few, test, 10, 0, CPU), abs=0.12)
    assert target_error(few, test, 10, 0, CUDA, pretrain(source, 0, CUDA)) < scratch - 0.05
