"""The pipeline of docs/pipeline.md, executed as written."""

import numpy as np
import pytest

from tests.e2e.stack import ROOT
from tests.e2e.walking import walk

pytestmark = [pytest.mark.stack, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def names(stack, tmp_path_factory):
    return walk(ROOT / "docs/pipeline.md", stack, tmp_path_factory.mktemp("pipeline"))[1]


def test_training_on_the_cleaned_set_is_better_and_becomes_the_default(names):
    assert names["best"] == "kept"
    assert names["accuracy"]["kept"] > names["accuracy"]["all"] + 0.02


def test_the_default_is_what_it_was(names):
    assert names["deepnight"].model("aum").version == names["before"].version


def test_its_own_embeddings_tell_darker_pictures(names):
    assert names["vectors"].shape[0] == 100
    assert np.isfinite(names["vectors"]).all()
    near, far = names["distances"][0][1:]
    assert far > 1.2 * near
