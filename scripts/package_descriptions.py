"""Make the data set ``package-descriptions`` from a Debian release's package lists.

``python scripts/package_descriptions.py Packages.xz Translation-en.xz OUT.parquet`` reads the two lists of the
component main, which any mirror has under ``dists/bookworm/main/binary-amd64/`` and ``dists/bookworm/main/i18n/``
(``.xz``, ``.bz2``, ``.gz`` or plain). Every package gives a pair: its long description and the one line above it.

Kept are descriptions of 20 words or more whose synopsis has at least two, the first package of each description. The
splits are by source package, by hash of its name, 90% : 5% : 5%, so that no package has a near-twin in another split.
Put the file into ``$DEEPNIGHT_HOME/data/package-descriptions/package-descriptions.parquet``. A point release adds and
drops packages: the hash of the content, which every figure names, then differs from the shipped figures'.
"""

from __future__ import annotations

import argparse
import bz2
import gzip
import hashlib
import lzma
import re
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

_OPENERS = {".xz": lzma.open, ".bz2": bz2.open, ".gz": gzip.open}
_MIN_WORDS, _MIN_SYNOPSIS = 20, 2


def stanzas(path: Path) -> Iterator[dict[str, str]]:
    """The paragraphs of a control file: field names in lower case, continuation lines kept."""
    opener = _OPENERS.get(path.suffix, open)
    with opener(path, "rt", encoding="utf-8") as file:
        fields: dict[str, str] = {}
        name = ""
        for line in file:
            if not line.strip():
                if fields:
                    yield fields
                fields = {}
            elif line[0] in " \t":
                fields[name] += "\n" + line.rstrip("\n")
            else:
                name, _, value = line.partition(":")
                name = name.lower()
                fields[name] = value.strip()
        if fields:
            yield fields


def read_description(field: str) -> tuple[str, str]:
    """Synopsis and description: lines are joined to paragraphs, lists keep their lines."""
    synopsis, *lines = field.split("\n")
    paragraphs: list[list[str]] = [[]]
    for line in lines:
        if line.strip() == ".":
            paragraphs.append([])
        else:
            paragraphs[-1].append(line[1:])
    joined = [
        "\n".join(part) if any(re.match(r"\s|[-*+o]\s", line) for line in part) else " ".join(part)
        for part in paragraphs
    ]
    return synopsis.strip(), "\n\n".join(part.rstrip() for part in joined if part.strip())


def split_of(source: str) -> str:
    """``train``, ``validation`` or ``test`` by the hash of the source package's name."""
    position = int(hashlib.sha256(source.encode()).hexdigest(), 16) % 100
    return "test" if position < 5 else "validation" if position < 10 else "train"


def pairs(packages: Path, translation: Path) -> list[dict[str, str]]:
    """One row a description, by package."""
    facts = {row["package"]: row for row in stanzas(packages)}
    rows, seen = [], set()
    for row in sorted(stanzas(translation), key=lambda fields: fields["package"]):
        name = row["package"]
        if name not in facts or "description-en" not in row:
            continue
        synopsis, description = read_description(row["description-en"])
        if len(description.split()) < _MIN_WORDS or len(synopsis.split()) < _MIN_SYNOPSIS or description in seen:
            continue
        seen.add(description)
        source = facts[name].get("source", name).split()[0]
        rows.append(
            {
                "package": name,
                "source": source,
                "section": facts[name].get("section", ""),
                "synopsis": synopsis,
                "description": description,
                "split": split_of(source),
            }
        )
    return rows


def main() -> None:
    """Read two lists and write the data set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packages", type=Path)
    parser.add_argument("translation", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    rows = pairs(arguments.packages, arguments.translation)
    parquet.write_table(pa.Table.from_pylist(rows), arguments.out, compression="zstd")
    counts = {name: sum(row["split"] == name for row in rows) for name in ("train", "validation", "test")}
    print(f"{len(rows)} pairs: {counts}")


if __name__ == "__main__":
    main()
