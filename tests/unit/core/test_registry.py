"""Discovery and versions."""

import shutil

import pytest
import torch

from models.core.card import Card
from models.core.checkpoint import Checkpoint, CheckpointConfig, CheckpointError
from models.core.inputs import VectorSpec
from models.core.registry import Registry, UnknownMethodError, parse_model_id
from models.core.store import BlobStore
from models.core.versions import UnknownVersionError, VersionExistsError, Versions

CARD = """
slug = "doubling"
title = "Doubling"
capability = "embed"
description = "Doubles a vector."
use_when = "a test needs a method"
limits = "none"
licence = "Apache-2.0"
input = "a vector of three numbers"
output = "the same numbers, doubled"
trainable = ["vector"]
[paper]
title = "None"
authors = "Nobody"
venue = "Nowhere"
url = "https://example.org"
"""
SCHEMA = """
from pydantic import BaseModel
class Params(BaseModel, extra="forbid"):
    factor: float = 2.0
class Config(BaseModel, extra="forbid"):
    pass
"""
METHOD = """
import numpy as np
from models.core.method import Method
class Doubling(Method):
    @classmethod
    def load(cls, checkpoint, device): return cls()
    def predict(self, inputs, params): return np.asarray(inputs) * params.factor
    @classmethod
    def evaluate(cls, checkpoint, run, dataset=None): raise AssertionError
"""


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "methods" / "doubling"
    folder.mkdir(parents=True)
    (folder / "card.toml").write_text(CARD)
    (folder / "schema.py").write_text(SCHEMA)
    (folder / "method.py").write_text(METHOD)
    config = CheckpointConfig(method="doubling", input=VectorSpec(size=3))
    Checkpoint.write(folder / "weights", config, {"unused": torch.zeros(1)})
    return folder.parent


def test_a_folder_is_a_method(root):
    registry = Registry(root)
    entry = registry["doubling"]
    method = entry.method.load(entry.shipped(), torch.device("cpu"))
    assert method.card.title == "Doubling"
    assert method.predict([[1.0, 2.0, 3.0]], entry.params()).tolist() == [[2.0, 4.0, 6.0]]
    with pytest.raises(UnknownMethodError):
        registry["tripling"]


def test_a_slug_is_claimed_once(root):
    shutil.copytree(root / "doubling", root / "again")
    with pytest.raises(ValueError, match="taken"):
        Registry(root)


def test_a_wrong_card_names_its_file_and_field(root):
    (root / "doubling" / "card.toml").write_text(CARD.replace('"embed"', '"fly"'))
    with pytest.raises(ValueError, match=r"card\.toml(?s:.*)capability"):
        Registry(root)


def test_cards_are_strict():
    with pytest.raises(ValueError, match="colour"):
        Card.model_validate({"colour": "red"})


@pytest.fixture
def versions(root, tmp_path):
    return Versions(Registry(root), BlobStore(str(tmp_path / "store")), tmp_path / "cache")


def publish(versions, root, name, **options):
    return versions.publish("doubling", name, root / "doubling" / "weights", owner="me", **options)


def test_a_method_ships_several_versions(versions, root):
    further = CheckpointConfig(method="doubling", version="large", input=VectorSpec(size=5))
    Checkpoint.write(root / "doubling" / "weights" / "large", further, {"unused": torch.zeros(2)})
    publish(versions, root, "mine")
    assert [(v.name, v.shipped) for v in versions.list("doubling")] == [("1", True), ("large", True), ("mine", False)]
    large = versions.resolve("doubling@large")
    assert versions.checkpoint(large).config.input.size == 5
    assert versions.resolve("doubling").name == "1"
    versions.set_default(large)
    assert (versions.resolve("doubling").name, versions.resolve("doubling@1").shipped) == ("large", True)
    with pytest.raises(VersionExistsError):
        publish(versions, root, "large")
    (root / "doubling" / "weights" / "large").rename(root / "doubling" / "weights" / "huge")
    with pytest.raises(CheckpointError, match="weights/huge holds a checkpoint of version large"):
        versions.list("doubling")


def test_versions_stand_beside_the_shipped_one(versions, root):
    assert [v.name for v in versions.list("doubling")] == ["1"]
    publish(versions, root, "mine")
    assert [v.name for v in versions.list("doubling")] == ["1", "mine"]
    assert versions.resolve("doubling").name == "1"
    assert versions.resolve("doubling@mine").record.owner == "me"
    versions.set_default(versions.resolve("doubling@mine"))
    assert versions.resolve("doubling").name == "mine"
    assert versions.checkpoint(versions.resolve("doubling")).config.method == "doubling"
    versions.delete(versions.resolve("doubling@mine"))
    assert versions.resolve("doubling").name == "1"
    with pytest.raises(UnknownVersionError):
        versions.resolve("doubling@mine")


def test_names_are_not_taken_twice_but_a_repeated_job_may_publish_again(versions, root):
    publish(versions, root, "mine", job="job_1")
    publish(versions, root, "mine", job="job_1")
    for name, job in (("mine", "job_2"), ("mine", None), ("1", "job_1")):
        with pytest.raises(VersionExistsError):
            publish(versions, root, name, job=job)


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "x" * 64, "a b"])
def test_version_names_are_plain(versions, root, name):
    with pytest.raises(ValueError, match="version name"):
        publish(versions, root, name)
    with pytest.raises(UnknownVersionError):
        versions.resolve(f"doubling@{name or '..'}")


def test_a_shipped_version_stays(versions):
    with pytest.raises(ValueError, match="shipped"):
        versions.delete(versions.resolve("doubling"))


def test_a_remote_store_is_fetched_once(root, tmp_path):
    versions = Versions(Registry(root), BlobStore(f"memory://{tmp_path.name}"), tmp_path / "cache")
    publish(versions, root, "far")
    checkpoint = versions.checkpoint(versions.resolve("doubling@far"))
    assert checkpoint.folder.is_relative_to(tmp_path / "cache")
    assert "unused" in checkpoint.tensors()


def test_a_method_opens_only_checkpoints_of_its_own(versions, root):
    folder = publish(versions, root, "mine") and versions.checkpoint(versions.resolve("doubling@mine")).folder
    text = (folder / "config.json").read_text()
    (folder / "config.json").write_text(text.replace('"doubling"', '"tripling"'))
    for opening in (
        lambda: versions.checkpoint(versions.resolve("doubling@mine")),
        lambda: versions.registry["doubling"].checkpoint(folder),
        lambda: versions.publish("doubling", "other", folder, owner="me"),
    ):
        with pytest.raises(CheckpointError, match="is a checkpoint of tripling, not of doubling"):
            opening()
    assert [version.name for version in versions.list("doubling")] == ["1", "mine"]


def test_model_ids():
    assert parse_model_id("a") == ("a", None)
    assert parse_model_id("a@1") == ("a", "1")
    assert parse_model_id("a@") == ("a", None)
