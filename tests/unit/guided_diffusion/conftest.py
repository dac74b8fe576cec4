"""A version trained for seconds on pictures whose class is where the light is."""

import numpy as np
import pytest

from models.core.dataset import Dataset
from models.core.run import LocalRun
from models.guided_diffusion.schema import Config
from models.guided_diffusion.versions import write_version

TINY = Config(
    image_size=8, width=8, multipliers=[1, 2], attention=[4], head_channels=8, groups=4, classifier_width=8,
    timesteps=100, steps=120, classifier_steps=120, judge_steps=120, batch_size=32, warmup=10, learning_rate=4e-3,
    classifier_rate=4e-3,
)  # fmt: skip


def halves(count, seed=0):
    """Pictures that are light on the left (class 0) or on the right (class 1)."""
    random = np.random.default_rng(seed)
    images = random.integers(0, 60, (count, 8, 8, 1), dtype=np.uint8)
    labels = np.arange(count, dtype=np.int64) % 2
    images[labels == 0, :, :4] += 180
    images[labels == 1, :, 4:] += 180
    return Dataset("images", images, labels, ["left", "right"], name="halves")


@pytest.fixture(scope="session")
def dataset():
    return halves(200)


@pytest.fixture(scope="session")
def trained(tmp_path_factory, dataset):
    run = LocalRun(tmp_path_factory.mktemp("trained"), seed=3)
    return write_version(dataset, TINY, run), run
