import subprocess
import sys

import pytest
from pydantic import ValidationError

from models.core.jobs import JobContext
from models.core.registry import Registry, UnknownMethodError
from models.core.run import LocalRun
from models.core.store import BlobStore
from models.core.versions import Versions
from tests.unit.workers.stack import METHODS
from workers.errors import JobSpecError, UnknownKindError
from workers.kinds import execute, validate
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


def test_a_kind_for_any_model_takes_those_of_other_methods(registry):
    fields = {"dataset": "ds_1", "dataset_kind": "images"}
    for model in (None, "sam", "sam@sgd", "aum", "early-stopping"):
        assert check(registry, "sharpness-report", model=model, **fields).model == model
    with pytest.raises(JobSpecError, match="offered by sam"):
        check(registry, "rho-search", model="aum", **fields)


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


class Untouched(LocalRun, JobContext):
    """A job that fails the test when its work begins: it may only ask whether the name is free."""

    dataset_id = "ds_1"

    def __init__(self, folder, versions):
        super().__init__(folder)
        self.registry, self.versions = versions.registry, versions

    def check_free(self, slug, name=None):
        self.versions.check_free(slug, name or "own", job="job_2")

    def dataset(self, dataset_id):
        raise AssertionError("the work began")

    dataset_file = register_dataset = checkpoint = dataset


@pytest.mark.parametrize(
    ("fields", "begins"),
    [
        ({"kind": "robust-train", "parameters": {"version": "taken"}}, False),
        ({"kind": "robust-train", "parameters": {"version": "1"}}, False),
        ({"kind": "train", "model": "early-stopping", "parameters": {"version": "taken"}}, False),
        ({"kind": "train", "model": "early-stopping", "parameters": {"version": "free"}}, True),
        ({"kind": "train", "model": "early-stopping"}, True),
        ({"kind": "robust-train"}, True),
        ({"kind": "noise-robustness-report"}, True),
    ],
)
def test_a_taken_name_is_refused_before_the_work(registry, tmp_path, fields, begins):
    versions = Versions(registry, BlobStore(str(tmp_path / "store")), tmp_path / "cache")
    shipped = registry["early-stopping"].shipped()
    versions.publish("early-stopping", "taken", shipped.folder, owner="me", job="job_1")
    spec = validate(registry, JobSpec(dataset="ds_1", **fields))
    with pytest.raises(AssertionError if begins else JobSpecError) as caught:
        execute(registry, Untouched(tmp_path / "run", versions), spec)
    assert str(caught.value) == "the work began" if begins else caught.value.field == "/parameters/version"


def test_a_repeated_job_may_take_its_own_name_again(registry, tmp_path):
    versions = Versions(registry, BlobStore(str(tmp_path / "store")), tmp_path / "cache")
    shipped = registry["early-stopping"].shipped()
    versions.publish("early-stopping", "own", shipped.folder, owner="me", job="job_2")
    spec = validate(registry, JobSpec(kind="robust-train", dataset="ds_1"))
    with pytest.raises(AssertionError, match="the work began"):
        execute(registry, Untouched(tmp_path / "run", versions), spec)


def test_whatever_publishes_names_its_version_in_its_parameters(registry):
    publishing = [(entry, kind) for entry, kind in registry.job_kinds().values() if kind.publishes]
    assert publishing
    for entry, kind in publishing:
        assert "version" in entry.model(kind.parameters).model_fields, kind.kind
