"""What a queued job's function is given. The functions live in the methods' folders, named by their cards."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path

from models.core.checkpoint import Checkpoint
from models.core.dataset import Dataset
from models.core.registry import Registry
from models.core.run import Run


class JobContext(Run):
    """A :class:`Run` that can also reach data sets and versions of the job's owner.

    Attributes:
        dataset_id: the data set named in the job's request, or None for kinds that take none.
        model: the ``slug`` or ``slug@version`` named in the job's request, or None.
        registry: the installed methods, for kinds that work with any of them.
    """

    job_id: str
    owner: str
    dataset_id: str | None = None
    model: str | None = None
    registry: Registry

    @abstractmethod
    def dataset(self, dataset_id: str) -> Dataset:
        """Load a data set of the owner.

        Raises:
            KeyError: there is none of that id.
        """

    @abstractmethod
    def dataset_file(self, dataset_id: str) -> tuple[Path, str]:
        """The uploaded file itself and its format (``npz``, ``parquet``, ``csv``, ``jsonl``, ``zip``, ``tar.gz``)."""

    @abstractmethod
    def register_dataset(self, path: Path, name: str) -> str:
        """Store the file ``path`` as a new data set of the owner and return its id."""

    def publish(self, slug: str, checkpoint: Checkpoint, name: str | None = None) -> str:
        """Serve ``checkpoint`` as a version of ``slug``, named by the job where no name is given; its model id.

        Raises:
            ValueError: the name is taken, or nothing serves versions here.
        """
        raise ValueError(f"nothing serves versions of {slug} here")

    def check_free(self, slug: str, name: str | None = None) -> None:
        """Check that :meth:`publish` would take the name; whoever runs a job that publishes does so before its work.

        Raises:
            ValueError: the name is taken, or nothing serves versions here.
        """
        raise ValueError(f"nothing serves versions of {slug} here")

    @abstractmethod
    def checkpoint(self, model: str) -> Checkpoint:
        """Open the checkpoint of ``slug`` or ``slug@version``.

        Raises:
            UnknownMethodError, UnknownVersionError: there is none.
        """
