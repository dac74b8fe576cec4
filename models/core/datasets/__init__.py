"""Uploaded data sets: six formats, precise errors, and the store that keeps them."""

from models.core.datasets.errors import DatasetError, UnknownDatasetError
from models.core.datasets.options import DatasetOptions, Format, Limits
from models.core.datasets.store import DatasetRecord, DatasetStore
from models.core.datasets.subset import write_dataset

__all__ = [
    "DatasetError",
    "DatasetOptions",
    "DatasetRecord",
    "DatasetStore",
    "Format",
    "Limits",
    "UnknownDatasetError",
    "write_dataset",
]
