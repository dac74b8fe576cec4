"""Write a CycloneDX bill of materials of what ``requirements.lock`` pins: ``python scripts/sbom.py [FILE]``.

What is installed is read by ``cyclonedx-py`` (names, versions, licences, who depends on whom) and cut down to the lock,
so that it lists what is shipped and not what tests need, without the projects' many links: the package URL identifies
it. It holds no time and no serial number: the same environment gives the same bytes. ``make sbom`` runs it.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from importlib.metadata import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements.lock"
TARGET = ROOT / "dist" / "sbom.cdx.json"


class SbomError(Exception):
    """The environment is not what the lock says; the message is one line."""


def main() -> int:
    """Write the file and print how many packages have which licence; the exit code."""
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else TARGET
    try:
        bom = restrict(installed(), pins(LOCK.read_text(encoding="utf-8")))
    except SbomError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(bom, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    counts = Counter(licence(component) for component in bom["components"])
    print(f"{target}: {len(bom['components'])} packages")
    print("\n".join(f"{count:5} {name}" for name, count in counts.most_common()))
    return 0


def pins(lock: str) -> dict[str, str]:
    """Versions by canonical name."""
    return dict(line.split("==") for line in lock.split("\n") if "==" in line and not line.startswith("#"))


def installed() -> dict[str, Any]:
    """The bill of everything in this environment."""
    command = [sys.executable, "-m", "cyclonedx_py", "environment", "--output-reproducible", "--no-validate"]
    command += ["--spec-version", "1.6", "--pyproject", str(ROOT / "pyproject.toml"), sys.executable]
    bom: dict[str, Any] = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return bom


def restrict(bom: dict[str, Any], wanted: dict[str, str]) -> dict[str, Any]:
    """The part of ``bom`` that ``wanted`` names, each component with a licence.

    Raises:
        SbomError: a pinned package is not installed in its pinned version.
    """
    found = {canonical(component["name"]): component for component in bom["components"]}
    for name, version in wanted.items():
        here = found[name]["version"] if name in found else "not installed"
        if here.partition("+")[0] != version:
            raise SbomError(f"{name}: the lock says {version}, found {here}; run make dev")
    components = [found[name] for name in sorted(wanted)]
    for component in components:
        component.pop("externalReferences", None)
        if not component.get("licenses"):
            component["licenses"] = [{"license": {"acknowledgement": "declared", "name": declared(component["name"])}}]
    kept = {component["bom-ref"] for component in components} | {bom["metadata"]["component"]["bom-ref"]}
    dependencies = [
        {**each, "dependsOn": [ref for ref in each.get("dependsOn", ()) if ref in kept]}
        for each in bom["dependencies"]
        if each["ref"] in kept
    ]
    return {**bom, "components": components, "dependencies": dependencies}


def canonical(name: str) -> str:
    """The canonical spelling of a distribution's name."""
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(name: str) -> str:
    """The free text of a distribution's field ``License``, which the generator leaves out.

    Raises:
        SbomError: it has none.
    """
    texts = metadata(name).get_all("License")
    if not texts:
        raise SbomError(f"{name} declares no licence")
    return str(texts[0])


def licence(component: dict[str, Any]) -> str:
    """All licences of a component in one line."""
    entries = (each.get("license", each) for each in component["licenses"])
    return " / ".join(entry.get("expression") or entry.get("id") or entry["name"] for entry in entries)


if __name__ == "__main__":
    sys.exit(main())
