"""Write ``requirements.lock`` and ``requirements-dev.lock``: what pip chooses today for ``pyproject.toml``.

Run it with ``make lock``, read the difference, run the tests, commit. Both files are plain ``name==version`` lines;
the second holds only what the ``dev`` extra adds. torch is pinned without its build label: which build is installed
is decided by ``make TORCH=cpu|cuda`` (see ``scripts/bootstrap.py``).
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HEADER = "# Made by `make lock` from pyproject.toml; do not edit.\n"


def resolve(*requirements: str) -> dict[str, str]:
    """Name and version of everything that installing ``requirements`` would bring."""
    with tempfile.NamedTemporaryFile(suffix=".json") as report:
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "-qq"]
        subprocess.run([*command, "--report", report.name, *requirements], check=True, cwd=ROOT)
        chosen = json.loads(Path(report.name).read_text())["install"]
    found = {normalise(item["metadata"]["name"]): item["metadata"]["version"] for item in chosen}
    found.pop("deepnight")
    return {name: version.partition("+")[0] if name == "torch" else version for name, version in found.items()}


def normalise(name: str) -> str:
    """The canonical spelling of a distribution's name."""
    return re.sub(r"[-_.]+", "-", name).lower()


def write(path: Path, pins: dict[str, str]) -> None:
    """Write one lock, sorted."""
    path.write_text(HEADER + "".join(f"{name}=={pins[name]}\n" for name in sorted(pins)))
    print(f"{path.name}: {len(pins)} packages")


def main() -> None:
    """Resolve the runtime, then what development adds without moving a runtime pin."""
    torch = next(line for line in (ROOT / "pyproject.toml").read_text().splitlines() if '"torch==' in line)
    cpu = f"{torch.strip(' ,').strip(chr(34))}+cpu"
    runtime = resolve(".", cpu, "pip", "setuptools")
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as constraints:
        constraints.write("".join(f"{name}=={version}\n" for name, version in runtime.items()))
        constraints.flush()
        development = resolve(".[dev]", cpu, "-c", constraints.name)
    write(ROOT / "requirements.lock", runtime)
    write(ROOT / "requirements-dev.lock", {name: v for name, v in development.items() if name not in runtime})


if __name__ == "__main__":
    main()
