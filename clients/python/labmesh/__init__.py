"""labmesh: submit tests, benchmarks and programs to a mesh of machines.

    >>> import labmesh
    >>> mesh = labmesh.Client()                       # this machine's node
    >>> done = mesh.run(labmesh.custom("uname", "-s"))
    >>> done.result["stdout"]
    'Linux\\n'

:class:`Client` needs the standard library alone. ``labmesh.worker`` lends this machine to a
mesh without its being a node of it; it needs the package ``websockets``.
"""

from .client import Client, TaskRef
from .discovery import discover
from .errors import (
    ConflictError,
    DeniedError,
    ExhaustedError,
    InternalError,
    InvalidError,
    LabmeshError,
    NotFoundError,
    TaskFailedError,
    TooLargeError,
    UnavailableError,
    WaitTimeoutError,
)
from .logs import LogFrame
from .types import (
    TERMINAL,
    Artifact,
    Artifacts,
    Attempt,
    Limits,
    QueryResult,
    Requirements,
    RetryPolicy,
    Status,
    Submitted,
    Task,
    TaskSpec,
    TaskSummary,
    Worker,
    benchmark,
    custom,
    test,
)

__version__ = "0.1.0"

__all__ = [
    "TERMINAL",
    "Artifact",
    "Artifacts",
    "Attempt",
    "Client",
    "ConflictError",
    "DeniedError",
    "ExhaustedError",
    "InternalError",
    "InvalidError",
    "LabmeshError",
    "Limits",
    "LogFrame",
    "NotFoundError",
    "QueryResult",
    "Requirements",
    "RetryPolicy",
    "Status",
    "Submitted",
    "Task",
    "TaskFailedError",
    "TaskRef",
    "TaskSpec",
    "TaskSummary",
    "TooLargeError",
    "UnavailableError",
    "WaitTimeoutError",
    "Worker",
    "benchmark",
    "custom",
    "discover",
    "test",
]
