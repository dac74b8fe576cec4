"""A benchmark's table, printed and written into README.md between its markers."""

import re
from dataclasses import dataclass, field
from pathlib import Path

README = Path(__file__).parents[2] / "README.md"
BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"
TITLE = re.compile(r"^\*\*(.+)\*\*$", re.MULTILINE)


@dataclass
class Report:
    """One table.

    Attributes:
        title: what was compared with what.
        columns: headings.
        rows: cells, already formatted.
        notes: conditions, and what falls short with its cause.
    """

    title: str
    columns: list[str]
    rows: list[list[str]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, *cells):
        self.rows.append([cell if isinstance(cell, str) else f"{cell:.3g}" for cell in cells])

    def markdown(self):
        lines = [f"**{self.title}**", "", f"| {' | '.join(self.columns)} |", f"|{' --- |' * len(self.columns)}"]
        lines += [f"| {' | '.join(row)} |" for row in self.rows]
        if self.notes:
            lines += ["", *(f"- {note}" for note in self.notes)]
        return "\n".join(lines)


def write_readme(reports):
    """Put each report between the markers, in the place of the one of its title; tables of other titles stay."""
    text = README.read_text(encoding="utf-8")
    head, rest = text.split(BEGIN)
    body, tail = rest.split(END)
    tables = dict(zip(*[iter(TITLE.split(body)[1:])] * 2, strict=True))
    tables |= {report.title: report.markdown().removeprefix(f"**{report.title}**") for report in reports}
    body = "\n\n".join(f"**{title}**\n\n{table.strip()}" for title, table in tables.items())
    README.write_text(f"{head}{BEGIN}\n{body}\n{END}{tail}", encoding="utf-8")
