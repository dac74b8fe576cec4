"""Make ``.venv`` and install what ``requirements*.lock`` pin; a few milliseconds when that is done already.

Standard library only, so that it runs on a bare machine. Usage::

    python scripts/bootstrap.py [--dev] [--torch cpu|cuda]

``--torch cpu`` takes only a build of torch that is labelled ``+cpu`` (on Linux the plain wheel of the public index
needs gigabytes of CUDA libraries). It is looked for where pip is configured to look, then on the index of the
environment variable ``TORCH_INDEX``, by default PyTorch's own index of CPU builds.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import time
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP, UNFINISHED = VENV / ".installed", VENV / ".unfinished"
LOCK, DEV_LOCK = ROOT / "requirements.lock", ROOT / "requirements-dev.lock"
CPU_INDEX = "https://download.pytorch.org/whl/cpu"
NEEDED_BYTES = {"cpu": 3 << 30, "cuda": 12 << 30}


class BootstrapError(Exception):
    """The environment cannot be made; the message is one line for the user."""


def main() -> int:
    """Install what is missing; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dev", action="store_true", help="also what tests and checks need")
    parser.add_argument("--torch", choices=["cpu", "cuda", ""], default="", help="default: cuda where there is a GPU")
    arguments = parser.parse_args()
    try:
        ensure(dev=arguments.dev, torch=arguments.torch or default_torch())
    except BootstrapError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: the same command starts again where it can", file=sys.stderr)
        return 130
    return 0


def ensure(*, dev: bool, torch: str) -> None:
    """Bring ``.venv`` to what the locks say; does nothing when it is there already.

    Raises:
        BootstrapError: Python is too old, the disk is full, or a package cannot be had.
    """
    if sys.version_info < (3, 11):  # noqa: UP036 - this file also runs where nothing has checked the version yet
        found = platform.python_version()
        raise BootstrapError(f"Python 3.11 or newer is needed, {sys.executable} is {found}: make PYTHON=python3.11 ...")
    wanted = fingerprint(torch)
    if is_installed(wanted, dev=dev):
        return
    with LOCK.open() as lock:  # two `make` at once: the second waits
        fcntl.flock(lock, fcntl.LOCK_EX)
        if is_installed(wanted, dev=dev):
            return
        started = time.monotonic()
        say(f"installing into {VENV} (Python {platform.python_version()}, torch for {torch}); once, some minutes")
        make_venv(torch)
        UNFINISHED.touch()
        STAMP.unlink(missing_ok=True)
        install(dev=dev, torch=torch)
        STAMP.write_text(wanted + ("\ndev" if dev else "") + "\n")
        UNFINISHED.unlink()
        say(f"installed in {time.monotonic() - started:.0f} s")


def fingerprint(torch: str) -> str:
    """Hash of everything that decides what is installed."""
    digest = hashlib.sha256(f"{sys.version_info[:2]} {torch} {ROOT}".encode())
    for path in (LOCK, DEV_LOCK, ROOT / "pyproject.toml"):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def is_installed(wanted: str, *, dev: bool) -> bool:
    """Whether a finished installation of ``wanted`` is there."""
    if UNFINISHED.exists() or not STAMP.exists() or not PYTHON.exists():
        return False
    done, *extras = STAMP.read_text().split()
    return done == wanted and (not dev or "dev" in extras)


def default_torch() -> str:
    """``cuda`` where the NVIDIA driver lists a GPU, else ``cpu``."""
    if shutil.which("nvidia-smi") is None:
        return "cpu"
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    return "cuda" if "GPU" in listed.stdout else "cpu"


def make_venv(torch: str) -> None:
    """A virtual environment of this Python; one that an interrupted installation left is made anew."""
    if UNFINISHED.exists():
        say("the last installation was interrupted: making it anew")
        shutil.rmtree(VENV)
    free = shutil.disk_usage(ROOT).free
    if not PYTHON.exists() and free < NEEDED_BYTES[torch]:
        raise BootstrapError(f"{ROOT} has {free >> 20} MiB free, installing needs {NEEDED_BYTES[torch] >> 20} MiB")
    if not PYTHON.exists() or version_of(PYTHON) != list(sys.version_info[:2]):
        shutil.rmtree(VENV, ignore_errors=True)
        try:
            venv.create(VENV, symlinks=True, with_pip=True)
        except (OSError, subprocess.CalledProcessError) as error:
            shutil.rmtree(VENV, ignore_errors=True)
            hint = "on Debian and Ubuntu it is in the package python3-venv; or name another Python: make PYTHON=..."
            raise BootstrapError(f"{sys.executable} cannot make a virtual environment ({error}); {hint}") from error


def version_of(python: Path) -> list[int]:
    """Major and minor version of an interpreter, empty when it does not run."""
    code = "import sys; print(*sys.version_info[:2])"
    try:
        answer = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return []
    return [int(part) for part in answer.stdout.split()]


def install(*, dev: bool, torch: str) -> None:
    """Install torch, which may be refused, then pip's pinned self, every other pin, and this project in place."""
    pins = read_pins(LOCK) | (read_pins(DEV_LOCK) if dev else {})
    install_torch(pins["torch"], torch)
    Pip(1, "pip").run(f"pip=={pins['pip']}", f"setuptools=={pins['setuptools']}")
    requirements = ["-r", str(LOCK), *(["-r", str(DEV_LOCK)] if dev else [])]
    Pip(len(pins), "packages").run(*requirements)
    Pip(1, "deepnight").run("--no-deps", "--no-build-isolation", "-e", str(ROOT))


def read_pins(path: Path) -> dict[str, str]:
    """The ``name==version`` lines of a lock."""
    return dict(re.findall(r"^([A-Za-z0-9._-]+)==(\S+)$", path.read_text(), flags=re.MULTILINE))


def install_torch(version: str, build: str) -> None:
    """Install the wanted build of torch, never another one.

    Raises:
        BootstrapError: no index that can be reached has it.
    """
    if build == "cuda":
        Pip(25, "torch and the CUDA libraries, several gigabytes").run("-c", str(LOCK), f"torch==={version}")
        return
    if sys.platform != "linux":
        Pip(1, "torch").run("--no-deps", f"torch=={version}")
        return
    pin = ["--no-deps", f"torch=={version}+cpu"]
    index = os.environ.get("TORCH_INDEX") or CPU_INDEX
    if Pip(1, "torch").run(*pin, check=False):
        return
    say(f"no CPU build of torch where pip looks; trying {index}")
    if not Pip(1, "torch").run(*pin, "--index-url", index, "--timeout", "5", "--retries", "0", check=False):
        raise BootstrapError(
            f"no CPU build of torch {version} for Python {platform.python_version()} on {platform.machine()}: "
            f"{index} could not be reached or has none. Name a mirror (make TORCH_INDEX=URL ...), put the wheel where "
            "PIP_FIND_LINKS points, or accept gigabytes of CUDA libraries (make TORCH=cuda ...)"
        )


class Pip:
    """One call of pip that reports its progress in short lines.

    Args:
        total: how many packages the call is about.
        what: their name in the progress lines.
    """

    def __init__(self, total: int, what: str) -> None:
        self.total, self.what = total, what
        self.seen = 0
        self.reported = time.monotonic()

    def run(self, *arguments: str, check: bool = True) -> bool:
        """Run ``pip install``; returns whether it succeeded.

        Raises:
            BootstrapError: it failed and ``check`` is set; the message holds pip's last error.
        """
        command = [str(PYTHON), "-m", "pip", "install", "--no-input", "--progress-bar", "off", *arguments]
        environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_ROOT_USER_ACTION": "ignore"}
        lines: list[str] = []
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
        ) as process:
            for line in process.stdout or ():
                lines.append(line.rstrip())
                self.report(lines[-1])
        if process.returncode == 0:
            say(f"{self.what}: done")
        elif check:
            reason = next((line for line in reversed(lines) if line.startswith("ERROR:")), lines[-1] if lines else "")
            raise BootstrapError(f"pip could not install {self.what}: {reason.removeprefix('ERROR: ')}")
        return process.returncode == 0

    def report(self, line: str) -> None:
        """Turn one line of pip's output into progress: at most one line in two seconds."""
        word, _, rest = line.strip().partition(" ")
        if word == "Installing":
            say(f"{self.what}: unpacking {len(rest.split(',')) or 1} packages")
        elif word in ("Collecting", "Requirement"):
            self.seen += 1
            if time.monotonic() - self.reported > 2:
                self.reported = time.monotonic()
                name = rest.removeprefix("already satisfied: ").split()[0]
                say(f"{self.what}: {min(self.seen, self.total)}/{self.total} {name}")
        elif word == "Downloading" and line.endswith("MB)") and float(re.findall(r"\(([\d.]+) MB\)", line)[0]) > 20:
            say(f"{self.what}: downloading {rest.rpartition('/')[2]}")


def say(line: str) -> None:
    """One line of progress."""
    print(f"[install] {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
