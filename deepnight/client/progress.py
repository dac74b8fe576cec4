"""Bars on a terminal: bytes of an upload, a job's progress. Elsewhere nothing is written."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from deepnight.client.answers import Job

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn


def wanted(progress: bool | None) -> bool:
    """Whether to show a bar: None means on a terminal."""
    return sys.stderr.isatty() if progress is None else progress


class Counted(io.FileIO):
    """A file that tells how many bytes of it have been read."""

    def __init__(self, path: Path, told: Callable[[int], None]) -> None:
        super().__init__(path, "rb")
        self._told = told

    def read(self, size: int | None = -1, /) -> bytes:
        """The next bytes."""
        chunk = super().read(-1 if size is None else size) or b""
        self._told(self.tell())
        return chunk


def _bar(*columns: ProgressColumn) -> Progress:
    """On standard error: what it is about, the bar, then ``columns``."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    return Progress(TextColumn("{task.description}"), BarColumn(), *columns, console=Console(stderr=True))


@contextmanager
def upload_bar(path: Path, progress: bool | None) -> Iterator[Callable[[int], None]]:
    """Shows how much of ``path`` is sent; yields what to tell the number of bytes read."""
    if not wanted(progress):
        yield lambda _: None
        return
    from rich.progress import DownloadColumn, TimeRemainingColumn, TransferSpeedColumn

    with _bar(DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn()) as bar:
        task = bar.add_task(f"upload {path.name}", total=path.stat().st_size)
        yield lambda sent: bar.update(task, completed=sent)


@contextmanager
def job_bar(progress: bool | None) -> Iterator[Callable[[Job], None]]:
    """Shows a job's fraction, stage and remaining time; yields what to tell each state of the job."""
    if not wanted(progress):
        yield lambda _: None
        return
    from rich.progress import TaskProgressColumn, TextColumn, TimeElapsedColumn

    with _bar(TaskProgressColumn(), TimeElapsedColumn(), TextColumn("{task.fields[left]}")) as bar:
        task = bar.add_task("", total=1.0, left="")

        def tell(job: Job) -> None:
            eta = job.progress.eta_seconds
            stage = job.progress.stage if job.status == "running" else job.status
            left = "" if eta is None or job.final else f"{eta:.0f} s left"
            completed = 1.0 if job.status == "succeeded" else job.progress.fraction
            bar.update(task, description=f"{job.kind}: {stage}", completed=completed, left=left)

        yield tell
