"""What is wrong with an uploaded data set, and where."""

from __future__ import annotations


class DatasetError(ValueError):
    """A data set cannot be used; the message names the row or the member and is shown to the user.

    Attributes:
        field: JSON pointer of the request's field at fault (``/file``, ``/options/label``).
        row: index of the sample at fault, from 0, or None.
        member: name of the archive's member at fault, or None.
        detail: the reason alone, without the place.
    """

    def __init__(self, detail: str, *, field: str = "/file", row: int | None = None, member: str | None = None) -> None:
        self.detail = detail
        self.field = field
        self.row = row
        self.member = member
        places = ([] if member is None else [f"member {member!r}"]) + ([] if row is None else [f"row {row}"])
        super().__init__(f"{', '.join(places)}: {detail}" if places else detail)


class UnknownDatasetError(KeyError):
    """The owner has no data set of that id."""
