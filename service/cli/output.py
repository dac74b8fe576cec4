"""What the commands print: JSON for scripts, tables for people, one line for a failure, progress on stderr."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer

if TYPE_CHECKING:
    from service.settings import Settings

Json = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]


class Failure(Exception):  # noqa: N818 - what the user sees is called a failure, whoever's error it is
    """A command failed; the message is one line for the user.

    Attributes:
        code: the exit code: 1 it could not be done, 2 the command was wrong, 3 and up see ``service.preflight``.
    """

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


def load_settings() -> Settings:
    """The settings from the environment.

    Raises:
        Failure: a variable is not valid; names each.
    """
    from pydantic import ValidationError

    from service.settings import Settings

    try:
        return Settings()
    except ValidationError as error:
        wrong = [f"DEEPNIGHT_{str(item['loc'][0]).upper()}: {item['msg']}" for item in error.errors()]
        raise Failure("; ".join(wrong), 2) from None


def print_json(data: Any) -> None:
    """One JSON document on stdout."""
    print(json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], *, title: str = "") -> None:
    """A table as wide as the terminal."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=title or None, title_justify="left", header_style="bold", show_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(escape("" if value is None else str(value)) for value in row))
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(table)


class Report(Protocol):
    """Receives ``(fraction in [0, 1], stage, message)``."""

    def __call__(self, fraction: float, stage: str, message: str = "") -> None:
        """Show how far the work is."""


@contextmanager
def progress(title: str) -> Iterator[Report]:
    """Progress of long work: a bar with the remaining time on a terminal, elsewhere a line every five seconds."""
    if not sys.stderr.isatty():
        yield _PlainProgress(title)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=1.0)

        def report(fraction: float, stage: str, message: str = "") -> None:
            bar.update(task, completed=fraction, description=" ".join(part for part in (title, stage, message) if part))

        yield report


class _PlainProgress:
    """Lines for logs: at most one in five seconds, and one at the end."""

    INTERVAL_S = 5.0

    def __init__(self, title: str) -> None:
        self.title = title
        self.started = time.monotonic()
        self.last = float("-inf")

    def __call__(self, fraction: float, stage: str, message: str = "") -> None:
        now = time.monotonic()
        if now - self.last < self.INTERVAL_S and fraction < 1.0:
            return
        self.last = now
        elapsed = now - self.started
        left = f", {elapsed / fraction - elapsed:.0f} s left" if 0.02 < fraction < 1.0 else ""
        detail = " ".join(part for part in (stage, message) if part)
        print(f"{self.title}: {fraction:4.0%} {detail} ({elapsed:.0f} s{left})", file=sys.stderr, flush=True)
