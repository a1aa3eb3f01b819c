"""What can go wrong between a program and the mesh.

All errors are :class:`LabmeshError`. Its subclasses are the reasons that the
mesh gives, the same for the HTTP API and for the command line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Optional

if TYPE_CHECKING:
    from .types import Task


class LabmeshError(Exception):
    """The mesh refused something, or could not be asked.

    ``str(error)`` says what happened and, where there is something, what to do.
    """

    reason = "internal"

    def __init__(self, message: str, *, field: Optional[str] = None, status: Optional[int] = None) -> None:
        super().__init__(message)
        self.field = field
        """The field of the request at fault, e.g. ``config.name``, if one is."""
        self.status = status
        """The HTTP status, if there was an answer."""


class InvalidError(LabmeshError, ValueError):
    """The request makes no sense, and never will (HTTP 400, 405)."""

    reason = "invalid"


class DeniedError(LabmeshError, PermissionError):
    """There is no key, the key is not known, or it may not do this (HTTP 401, 403)."""

    reason = "denied"


class NotFoundError(LabmeshError, LookupError):
    """There is no such task, worker or file (HTTP 404)."""

    reason = "not_found"


class ConflictError(LabmeshError):
    """The mesh has moved on: what was asked does not fit what is there (HTTP 409)."""

    reason = "conflict"


class TooLargeError(LabmeshError):
    """The request or the answer is larger than the mesh allows (HTTP 413)."""

    reason = "too_large"


class ExhaustedError(LabmeshError):
    """A queue is full or a rate is exceeded; later it may work (HTTP 429)."""

    reason = "exhausted"


class UnavailableError(LabmeshError, ConnectionError):
    """No node answers, or the mesh has no leader; later it may work (HTTP 502 to 504)."""

    reason = "unavailable"


class InternalError(LabmeshError):
    """A fault in the node that answered (HTTP 500); its log says more."""

    reason = "internal"


class WaitTimeoutError(LabmeshError, TimeoutError):
    """The time of a wait is over, and the task has not ended. It goes on."""

    reason = "timeout"


class TaskFailedError(LabmeshError):
    """A task that was to be completed ended otherwise. ``task`` says how."""

    reason = "failed"

    def __init__(self, task: Task) -> None:
        said = f": {task.error}" if task.error else ""
        super().__init__(f"task {task.task_id} is {task.status}{said}")
        self.task = task


def error_of(status: int, message: str, field: Optional[str] = None) -> LabmeshError:
    """The error that an HTTP status stands for."""
    return _class_of(status)(message, field=field, status=status)


def _class_of(status: int) -> type[LabmeshError]:
    known: dict[int, type[LabmeshError]] = {
        401: DeniedError,
        403: DeniedError,
        404: NotFoundError,
        409: ConflictError,
        413: TooLargeError,
        429: ExhaustedError,
        502: UnavailableError,
        503: UnavailableError,
        504: UnavailableError,
    }
    if status in known:
        return known[status]
    return InvalidError if status < 500 else InternalError
