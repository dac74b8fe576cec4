"""Write the table of models from cards and measured figures into README.md and docs/methods/README.md.

The table stands between the lines ``<!-- models:begin -->`` and ``<!-- models:end -->``. With ``--check`` nothing is
written, and the exit code says whether the files agree with the cards.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from models.core.figures import Figure
from models.core.registry import MethodEntry, Registry

ROOT = Path(__file__).resolve().parent.parent
PAGES = (ROOT / "README.md", ROOT / "docs" / "methods" / "README.md")
BETWEEN = re.compile(r"(<!-- models:begin -->\n).*?(<!-- models:end -->)", re.DOTALL)


def main() -> int:
    """Write or check the pages; the exit code."""
    stale = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        wanted = BETWEEN.sub(r"\g<1>" + table(page).replace("\\", r"\\") + r"\g<2>", text)
        if "--check" in sys.argv[1:]:
            stale += [page.name] if wanted != text else []
        elif wanted != text:
            page.write_text(wanted, encoding="utf-8")
    if stale:
        print(f"{', '.join(stale)}: the table of models is not what cards and figures say; run make models-table")
    return 1 if stale else 0


def table(page: Path) -> str:
    """All methods as a Markdown table with links relative to ``page``."""
    lines = ["| model | route or job | what it is | measured |", "| --- | --- | --- | --- |"]
    lines += [row(entry, page) for entry in Registry().values()]
    return "\n".join(lines) + "\n"


def row(entry: MethodEntry, page: Path) -> str:
    """One method."""
    card = entry.card
    document = ROOT / "docs" / "methods" / f"{entry.slug}.md"
    target = document if document.exists() else entry.folder / "card.toml"
    link = f"[`{entry.slug}`]({relative(target, page)})"
    offers = " ".join(f"`{offer}`" for offer in (card.capability, *(job.kind for job in card.jobs)))
    paper = f"{card.title}. [{card.paper.venue}]({card.paper.url})"
    checkpoint = entry.shipped()
    figures = checkpoint.figures.figures if checkpoint is not None and checkpoint.figures is not None else []
    return f"| {link} | {offers} | {paper} | {'<br>'.join(measured(figures)) or 'not measured yet'} |"


def relative(target: Path, page: Path) -> str:
    """Path of ``target`` as a link in ``page``."""
    up = next(parent for parent in page.parents if target.is_relative_to(parent))
    return "../" * len(page.parent.relative_to(up).parts) + target.relative_to(up).as_posix()


def measured(figures: list[Figure]) -> Iterator[str]:
    """The headline figures, each with what its baselines reach at the same thing."""
    for figure in figures:
        if not figure.headline or figure.subject != "method":
            continue
        others = [f for f in figures if (f.name, f.setting) == (figure.name, figure.setting) and f is not figure]
        beside = ", ".join(f"{other.subject} {other.text}" for other in others if other.subject != "method")
        unit = f" {figure.unit}" if figure.unit else ""
        seeds = f", {figure.seeds} seeds" if figure.seeds > 1 else ""
        setting = f" ({figure.setting}{seeds})" if figure.setting else ""
        yield f"{figure.name} **{figure.text}**{unit}" + (f"; {beside}" if beside else "") + setting


if __name__ == "__main__":
    sys.exit(main())
