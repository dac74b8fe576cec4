"""Parsing in a process of its own: ``python -m models.core.datasets.ingest``, one JSON task on standard input.

A large file costs the process that serves requests neither its interpreter nor its memory, a parser that a hostile
file makes grow dies alone, and the work can be stopped at any moment. The answer is one JSON line on standard output.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Literal

from pydantic import BaseModel

from models.core.datasets.errors import DatasetError, UnknownDatasetError
from models.core.datasets.options import DatasetOptions, Limits
from models.core.datasets.store import DatasetRecord, DatasetStore
from models.core.store import BlobStore, StoreFullError, StoreUnavailableError

_PR_SET_PDEATHSIG = 1
_OVERHEAD = 4 << 30  # address space of the interpreter and its libraries, most of it never touched


class IngestTask(BaseModel):
    """Where the stores are, and what to do: add the file ``path``, or parse ``dataset`` into the cache."""

    store: str
    cache: Path
    limits: Limits
    parent: int
    owner: str
    dataset: str | None = None
    path: Path = Path()
    filename: str = ""
    name: str | None = None
    options: DatasetOptions = DatasetOptions()
    sha256: str | None = None


class IngestAnswer(BaseModel):
    """What became of the task; ``field``, ``row`` and ``member`` say where a refused file is wrong."""

    outcome: Literal["done", "refused", "full", "away", "unknown"]
    record: DatasetRecord | None = None
    created: bool = False
    detail: str = ""
    field: str = ""
    row: int | None = None
    member: str | None = None


def run(task: IngestTask) -> IngestAnswer:
    """Do ``task``; errors become part of the answer."""
    try:
        return _do(task, DatasetStore(BlobStore(task.store), task.cache, task.limits))
    except DatasetError as error:
        return IngestAnswer(outcome="refused", detail=str(error), field=error.field, row=error.row, member=error.member)
    except MemoryError:
        return IngestAnswer(outcome="refused", detail="reading it takes more memory than is allowed", field="/file")
    except UnknownDatasetError:
        return IngestAnswer(outcome="unknown")
    except StoreFullError:
        return IngestAnswer(outcome="full")
    except StoreUnavailableError as error:
        return IngestAnswer(outcome="away", detail=str(error))


def _do(task: IngestTask, store: DatasetStore) -> IngestAnswer:
    if task.dataset is not None:
        store.load(task.owner, task.dataset)
        return IngestAnswer(outcome="done")
    record, created = store.add(
        task.owner, task.path, filename=task.filename, name=task.name, options=task.options, sha256=task.sha256
    )
    return IngestAnswer(outcome="done", record=record, created=created)


def main() -> int:
    """Read the task, bound this process, do the task, write the answer."""
    task = IngestTask.model_validate_json(sys.stdin.buffer.read())
    signal.signal(signal.SIGTERM, _stop)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != task.parent:  # it died before prctl
            return 1
        most = 3 * task.limits.decompressed_bytes + _OVERHEAD
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    os.nice(5)
    answer = run(task)
    sys.stdout.write(answer.model_dump_json() + "\n")
    return 0


def _stop(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


if __name__ == "__main__":
    sys.exit(main())
