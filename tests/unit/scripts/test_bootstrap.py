import importlib.util
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture
def clone(tmp_path):
    """What bootstrap needs of a fresh clone."""
    (tmp_path / "scripts").mkdir()
    for name in ("scripts/bootstrap.py", "requirements.lock", "requirements-dev.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


@pytest.fixture
def bootstrap(clone):
    """The script of the clone as a module."""
    spec = importlib.util.spec_from_file_location("bootstrap", clone / "scripts" / "bootstrap.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def offline(clone, *arguments):
    """Run the script where no index has anything."""
    empty = clone / "empty"
    empty.mkdir(exist_ok=True)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "TORCH"))}
    nowhere = {
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_INDEX_URL": empty.as_uri(),
        "TORCH_INDEX": "http://127.0.0.1:9/whl/cpu",
    }
    command = [sys.executable, str(clone / "scripts" / "bootstrap.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, env={**kept, **nowhere}, check=False, timeout=120)


@pytest.mark.skipif(sys.platform != "linux", reason="only there the plain wheel brings CUDA")
def test_without_a_cpu_build_it_refuses_instead_of_downloading_cuda(clone):
    done = offline(clone, "--torch", "cpu")
    assert done.returncode == 1
    assert done.stderr.startswith("error: no CPU build of torch")
    assert done.stderr.count("\n") == 1
    assert "http://127.0.0.1:9/whl/cpu" in done.stderr
    assert "TORCH_INDEX" in done.stderr
    assert not (clone / ".venv" / ".installed").exists()
    again = offline(clone, "--torch", "cpu")
    assert again.returncode == 1
    assert "interrupted: making it anew" in again.stdout


def test_a_finished_installation_is_known_by_its_locks(bootstrap):
    wanted = bootstrap.fingerprint("cpu")
    assert not bootstrap.is_installed(wanted, dev=False)
    bootstrap.PYTHON.parent.mkdir(parents=True)
    bootstrap.PYTHON.symlink_to(sys.executable)
    bootstrap.STAMP.write_text(f"{wanted}\n")
    assert bootstrap.is_installed(wanted, dev=False)
    assert not bootstrap.is_installed(wanted, dev=True)
    assert bootstrap.fingerprint("cuda") != wanted
    bootstrap.LOCK.write_text(bootstrap.LOCK.read_text() + "more==1\n")
    assert not bootstrap.is_installed(bootstrap.fingerprint("cpu"), dev=False)
    bootstrap.UNFINISHED.touch()
    assert not bootstrap.is_installed(wanted, dev=False)


def test_the_locks_pin_everything_that_the_project_asks_for(bootstrap):

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pins = bootstrap.read_pins(ROOT / "requirements.lock")
    developer = bootstrap.read_pins(ROOT / "requirements-dev.lock")
    assert not pins.keys() & developer.keys()
    for requirements, locked in (
        (project["dependencies"], pins),
        (project["optional-dependencies"]["dev"], pins | developer),
    ):
        for requirement in requirements:
            name = bootstrap.re.match(r"[A-Za-z0-9._-]+", requirement)[0].lower().replace("_", "-")
            assert name in locked, f"{requirement} is not locked: make lock"
    assert {"pip", "setuptools", "torch"} <= pins.keys()
    assert not any(name.startswith(("nvidia-", "cuda-")) for name in pins | developer)
