"""Environments for peers that cannot live in ours, since their requirements clash with what is pinned there."""

import subprocess
import sys
import sysconfig
import venv

from tests.e2e.stack import ROOT

FOLDER = ROOT / ".benchmarks" / "peers"


def python_with(requirement):
    """The Python of an environment with ``requirement``, made at the first call; None where pip cannot have it.

    What it lacks comes from this environment, behind its own packages: torch, and what the method imports.
    """
    home = FOLDER / requirement
    python, done = home / "bin" / "python", home / "done"
    if done.exists():
        return str(python)
    venv.create(home, with_pip=True, clear=True)
    pip = subprocess.run([python, "-m", "pip", "install", "-q", requirement], capture_output=True, text=True)
    if pip.returncode:
        print(f"{requirement}: left out, pip cannot install it: {pip.stderr.strip().splitlines()[-1]}", file=sys.stderr)
        return None
    variables = {"base": str(home), "platbase": str(home)}
    site = sysconfig.get_path("purelib", vars=variables)
    with open(f"{site}/ours.pth", "w") as file:
        file.write(f"{sysconfig.get_path('purelib')}\n")
    done.touch()
    return str(python)
