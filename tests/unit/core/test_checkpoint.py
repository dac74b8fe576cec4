"""Checkpoints say what is wrong with them, and never unpickle."""

import hashlib
import json

import pytest
import torch

from models.core.checkpoint import CONFIG, WEIGHTS, Checkpoint, CheckpointConfig, CheckpointError
from models.core.figures import Figure, Figures
from models.core.inputs import VectorSpec


def write(folder, module):
    config = CheckpointConfig(method="m", input=VectorSpec(size=3), seed=4)
    figures = Figures(figures=[Figure.over_seeds("accuracy", [0.5, 0.7], headline=True)])
    return Checkpoint.write(folder, config, module.state_dict(), figures)


@pytest.fixture
def module():
    torch.manual_seed(0)
    return torch.nn.Linear(3, 2)


def test_round_trip(tmp_path, module):
    write(tmp_path, module)
    opened = Checkpoint(tmp_path)
    assert opened.config.seed == 4
    assert opened.figures.figures[0].value == pytest.approx(0.6)
    assert opened.figures.figures[0].spread == pytest.approx(0.1414, abs=1e-4)
    other = torch.nn.Linear(3, 2)
    opened.load_into(other)
    assert torch.equal(other.weight, module.weight)


def test_half_precision_weights_are_widened(tmp_path, module):
    config = CheckpointConfig(method="m", input=VectorSpec(size=3))
    half = {name: tensor.half() for name, tensor in module.state_dict().items()}
    Checkpoint.write(tmp_path, config, half).load_into(other := torch.nn.Linear(3, 2))
    assert other.weight.dtype == torch.float32
    assert torch.allclose(other.weight, module.weight, atol=1e-3)


@pytest.mark.parametrize("damage", [lambda raw: raw[:-1], lambda raw: raw[:-1] + bytes([raw[-1] ^ 1]), lambda _: b""])
def test_damaged_weights_are_named(tmp_path, module, damage):
    checkpoint = write(tmp_path, module)
    (tmp_path / WEIGHTS).write_bytes(damage((tmp_path / WEIGHTS).read_bytes()))
    with pytest.raises(CheckpointError, match="SHA-256"):
        checkpoint.load_into(module)


def test_a_pickle_with_the_right_hash_is_not_unpickled(tmp_path, module):
    checkpoint = write(tmp_path, module)
    torch.save(module.state_dict(), tmp_path / WEIGHTS)
    config = json.loads((tmp_path / CONFIG).read_text())
    config["weights_sha256"] = hashlib.sha256((tmp_path / WEIGHTS).read_bytes()).hexdigest()
    (tmp_path / CONFIG).write_text(json.dumps(config))
    checkpoint = Checkpoint(tmp_path)
    with pytest.raises(CheckpointError):
        checkpoint.tensors()


def test_another_architecture_is_named(tmp_path, module):
    checkpoint = write(tmp_path, module)
    with pytest.raises(
        CheckpointError,
        match=r"has shape \(2, 3\), the network expects \(5, 3\)|has shape \(2,\), the network expects \(5,\)",
    ):
        checkpoint.load_into(torch.nn.Linear(3, 5))
    with pytest.raises(CheckpointError, match=r"unexpected tensors \['bias'\]"):
        checkpoint.load_into(torch.nn.Linear(3, 2, bias=False))


def test_missing_parts(tmp_path):
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        Checkpoint(tmp_path)
    (tmp_path / CONFIG).write_text("{}")
    with pytest.raises(CheckpointError, match="not valid"):
        Checkpoint(tmp_path)
