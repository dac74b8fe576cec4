"""Environments for peers that cannot live in ours, since their requirements clash with what is pinned there."""

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

from tests.e2e.stack import ROOT

FOLDER = ROOT / ".benchmarks" / "peers"


def python_with(*requirements):
    """The Python of an environment with ``requirements``, made at the first call; None where pip cannot have them.

    What it lacks comes from this environment, behind its own packages: torch, and what the method imports.
    """
    home = FOLDER / "+".join(requirements)
    python, done = home / "bin" / "python", home / "done"
    if done.exists():
        return str(python)
    venv.create(home, with_pip=True, clear=True)
    command = [python, "-m", "pip", "install", "-q", *requirements]
    pip = subprocess.run(command, capture_output=True, text=True, check=False)
    if pip.returncode:
        print(
            f"{requirements[0]}: left out, pip cannot install it: {pip.stderr.strip().splitlines()[-1]}",
            file=sys.stderr,
        )
        return None
    site = Path(sysconfig.get_path("purelib", vars={"base": str(home), "platbase": str(home)}))
    (site / "ours.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    done.touch()
    return str(python)
