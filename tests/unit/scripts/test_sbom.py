"""The bill of materials of the environment that the tests run in."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

ROOT = Path(__file__).parents[3]
LOCK = ROOT / "requirements.lock"


def write(target):
    command = [sys.executable, str(ROOT / "scripts" / "sbom.py"), str(target)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    return target.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return write(tmp_path_factory.mktemp("sbom") / "first.json")


@pytest.fixture
def sbom(monkeypatch):
    """The script as a module."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import sbom

    return sbom


def test_it_keeps_to_the_schema(text):
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None


def test_it_lists_what_the_lock_pins_and_nothing_else(text, sbom):
    components = json.loads(text)["components"]
    versions = {sbom.canonical(each["name"]): each["version"].partition("+")[0] for each in components}
    assert versions == sbom.pins(LOCK.read_text())


def test_each_package_has_a_licence_and_an_address(text):
    for component in json.loads(text)["components"]:
        assert component["licenses"], component["name"]
        assert component["purl"].startswith("pkg:pypi/"), component["name"]


def test_dependencies_stay_within_it(text):
    bom = json.loads(text)
    root = bom["metadata"]["component"]
    refs = {component["bom-ref"] for component in bom["components"]} | {root["bom-ref"]}
    needs = {each["ref"]: set(each["dependsOn"]) for each in bom["dependencies"]}
    assert set(needs) == refs
    assert set().union(*needs.values()) <= refs
    assert {"fastapi", "torch", "ray"} <= {ref.partition("==")[0] for ref in needs[root["bom-ref"]]}


def test_the_same_environment_gives_the_same_bytes(text, tmp_path):
    assert write(tmp_path / "second.json") == text
    assert "serialNumber" not in json.loads(text)
    assert "timestamp" not in json.loads(text)["metadata"]


def test_an_environment_that_is_not_the_lock_is_refused(sbom):
    bom = {"components": [{"name": "Some_Package", "version": "1.0"}]}
    with pytest.raises(sbom.SbomError, match=r"some-package: the lock says 1\.1, found 1\.0"):
        sbom.restrict(bom, {"some-package": "1.1"})
    with pytest.raises(sbom.SbomError, match="another: the lock says 2, found not installed"):
        sbom.restrict(bom, {"another": "2"})
