"""Ask vulnerability services about every package that the locks pin (``make audit``).

PyPI's advisories are asked first, then OSV's; with ``PIP_AUDIT_OSV_URL`` only the OSV service there, a mirror for
example. Exit codes: 0, every package was answered for and none has a known vulnerability; 1, some have; 3, no service
answered for all, so nothing is known of the others. (``pip-audit`` alone says "no known vulnerabilities" then.)
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LOCKS = (ROOT / "requirements.lock", ROOT / "requirements-dev.lock")
CANARY = ("django", "3.2")
"""A release with dozens of advisories that no lock pins: a service that finds none in it knows no advisories."""
CLEAN, VULNERABLE, UNANSWERED = 0, 1, 3


def main() -> int:
    """Audit the locks, or the files that are named; the exit code."""
    files = [Path(name) for name in sys.argv[1:]] or LOCKS
    code = UNANSWERED
    for service in ("osv",) if "PIP_AUDIT_OSV_URL" in os.environ else ("pypi", "osv"):
        code, lines = verdict(service, *ask(service, *files))
        print("\n".join(lines), flush=True)
        if code != UNANSWERED:
            break
    return code


def ask(service: str, *files: Path) -> tuple[list[dict[str, Any]], str]:
    """What ``service`` says of each package and of the canary, and the last line of complaint if it says nothing."""
    options = f"--no-deps --disable-pip --format json --progress-spinner off --timeout 15 -s {service}".split()
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as canary:
        canary.write("==".join(CANARY))
        canary.flush()
        for file in (*files, canary.name):
            options += ["--requirement", str(file)]
        done = subprocess.run(
            [sys.executable, "-m", "pip_audit", *options], capture_output=True, text=True, check=False
        )
    if done.stdout:
        return list(json.loads(done.stdout)["dependencies"]), ""
    return [], done.stderr.strip().rpartition("\n")[2]


def verdict(service: str, dependencies: list[dict[str, Any]], complaint: str = "") -> tuple[int, list[str]]:
    """Exit code, and lines for a person."""
    if not dependencies:
        return UNANSWERED, [f"{service}: no answer ({complaint}). NOTHING WAS AUDITED"]
    canary = [each for each in dependencies if (each["name"], each.get("version")) == CANARY]
    packages = [each for each in dependencies if each["name"] != CANARY[0]]
    answered = [each for each in packages if "skip_reason" not in each]
    told = f"{service}: answered for {len(answered)} of {len(packages)} packages"
    lines = [
        f"{each['name']} {each['version']}: {found['id']}, fixed in {', '.join(found['fix_versions']) or 'no version'}"
        for each in answered
        for found in each["vulns"]
    ]
    if lines:
        return VULNERABLE, [*lines, f"{told}, {len(lines)} known vulnerabilities"]
    if not any(each["vulns"] for each in canary):
        return UNANSWERED, [f"{told} and knows no advisory of {' '.join(CANARY)}. NOTHING WAS AUDITED"]
    if len(answered) < len(packages):
        left = ", ".join(each["name"] for each in packages if each not in answered)
        return UNANSWERED, [f"{told}. NOT AUDITED: {left}"]
    return CLEAN, [f"{told}, no known vulnerability"]


if __name__ == "__main__":
    sys.exit(main())
