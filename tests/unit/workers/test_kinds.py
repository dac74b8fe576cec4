import subprocess
import sys

import pytest
from pydantic import ValidationError

from models.core.registry import Registry, UnknownMethodError
from tests.unit.workers.stack import METHODS
from workers.errors import JobSpecError, UnknownKindError
from workers.kinds import validate
from workers.records import JobSpec


@pytest.fixture(scope="module")
def registry():
    return Registry(METHODS)


def check(registry, kind, dataset_kind=None, **fields):
    return validate(registry, JobSpec(kind=kind, **fields), dataset_kind)


def test_defaults_are_filled_in(registry):
    assert check(registry, "steps", parameters={"steps": 3}).parameters == {"steps": 3, "pause": 0.05, "trace": ""}
    trained = check(registry, "train", model="test-steps", dataset="ds_1", parameters={"preset": "paper", "pause": 1})
    assert trained.parameters == {"preset": "paper", "version": None, "epochs": 20, "pause": 1.0, "trace": ""}


def test_a_checked_job_stays_the_same_when_checked_again(registry):
    once = check(registry, "train", model="test-steps", dataset="ds_1", parameters={"epochs": 2, "version": "v2"})
    assert validate(registry, once) == once


def test_unknown_things_are_named(registry):
    with pytest.raises(UnknownKindError):
        check(registry, "nonsense")
    with pytest.raises(UnknownMethodError):
        check(registry, "train", model="nonsense", dataset="ds_1")
    with pytest.raises(UnknownMethodError):
        check(registry, "evaluate", model="nonsense@3")


@pytest.mark.parametrize(
    ("kind", "fields", "field"),
    [
        ("train", {"dataset": "ds_1"}, "/model"),
        ("train", {"model": "test-steps"}, "/dataset"),
        ("train", {"model": "test-steps@2", "dataset": "ds_1"}, "/model"),
        ("train", {"model": "test-steps", "dataset": "ds_1", "parameters": {"preset": "huge"}}, "/parameters/preset"),
        ("train", {"model": "test-steps", "dataset": "ds_1", "parameters": {"epoch": 1}}, "/parameters/epoch"),
        ("train", {"model": "test-steps", "dataset": "ds_1", "dataset_kind": "images"}, "/dataset"),
        ("evaluate", {}, "/model"),
        ("evaluate", {"model": "test-steps", "dataset": "ds_1", "dataset_kind": "text"}, "/dataset"),
        ("steps", {"dataset": "ds_1"}, "/dataset"),
        ("derive", {}, "/dataset"),
        ("derive", {"dataset": "ds_1", "dataset_kind": "images"}, "/dataset"),
        ("steps", {"model": "otdd"}, "/model"),
    ],
)
def test_a_field_that_does_not_fit_is_named(registry, kind, fields, field):
    with pytest.raises(JobSpecError) as caught:
        check(registry, kind, **fields)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("kind", "fields", "location"),
    [
        ("steps", {"parameters": {"steps": 0}}, ("steps",)),
        ("steps", {"parameters": {"other": 1}}, ("other",)),
        ("train", {"model": "test-steps", "dataset": "d", "parameters": {"epochs": 0}}, ("epochs",)),
        ("train", {"model": "test-steps", "dataset": "d", "parameters": {"version": "../x"}}, ("version",)),
        ("evaluate", {"model": "test-steps", "parameters": {"x": 1}}, ("x",)),
    ],
)
def test_a_value_out_of_range_is_named(registry, kind, fields, location):
    with pytest.raises(ValidationError) as caught:
        check(registry, kind, **fields)
    assert caught.value.errors()[0]["loc"] == location


@pytest.mark.parametrize("modules", ["workers.client, workers.kinds", "workers.main, workers.worker, workers.janitor"])
def test_neither_the_gateway_nor_the_worker_imports_torch(modules):
    code = (
        f"import sys, {modules}\n"
        "from models.core.registry import Registry\n"
        "from pathlib import Path\n"
        "from workers.kinds import validate; from workers.records import JobSpec\n"
        "registry = Registry(Path(sys.argv[1]))\n"
        "validate(registry, JobSpec(kind='train', model='test-steps', dataset='ds_1'))\n"
        "validate(registry, JobSpec(kind='evaluate', model='test-steps'))\n"
        "validate(registry, JobSpec(kind='steps'))\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(METHODS)], check=True)
