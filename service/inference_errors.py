"""How inference refuses or fails; routes turn each into a problem document."""

from __future__ import annotations


class DeadlineError(RuntimeError):
    """The deadline passed before the outputs were there."""


class NotReadyError(RuntimeError):
    """The backend did not become ready in time.

    Attributes:
        retry_after: seconds.
    """

    def __init__(self, retry_after: float) -> None:
        super().__init__("the service is starting")
        self.retry_after = retry_after


class ModelFailedError(RuntimeError):
    """The model cannot answer; the message is for the user."""


class InputFailedError(ValueError):
    """Inputs that the model refuses.

    Attributes:
        errors: position and reason of each.
    """

    def __init__(self, errors: list[tuple[int, str]]) -> None:
        super().__init__(f"{len(errors)} inputs are refused")
        self.errors = errors
