"""What goes into the mesh and what comes out of it.

Tasks are submitted as plain dictionaries, typed by :class:`TaskSpec`; :func:`custom`,
:func:`test` and :func:`benchmark` write the usual ones. Answers are frozen
dataclasses. Moments are ``datetime`` in UTC, sizes that end in ``_gb`` are GiB, and what
is not known or has not happened is ``None``. ``raw`` is the answer as it came, with
what a newer mesh may have added.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any, Literal, Optional, TypedDict

JSON = Mapping[str, Any]
"""A JSON object."""

TaskType = Literal["benchmark", "test", "custom"]

TERMINAL = frozenset({"completed", "failed", "timed_out", "cancelled"})
"""The statuses that a task never leaves."""


class Requirements(TypedDict, total=False):
    """Which workers fit a task. What is left out does not matter."""

    hardware: Sequence[str]
    """Every word must be in the worker's hardware, e.g. ``cuda``."""
    min_memory_gb: float
    min_cuda_compute: float
    cpus: int
    gpus: int
    exclusive: bool
    tags: Mapping[str, str]
    worker_id: str
    tools: Sequence[str]
    sandbox: Literal["no_network", "bubblewrap"]


class RetryPolicy(TypedDict, total=False):
    """How often a task that failed by its own fault is run again."""

    max_retries: int
    backoff_seconds: float


class Limits(TypedDict, total=False):
    """What one attempt may use of its machine."""

    cpus: float
    memory_gb: float
    pids: int
    disk_gb: float


class _Required(TypedDict):
    type: TaskType
    config: JSON


class TaskSpec(_Required, total=False):
    """A task as it is submitted. The mesh refuses fields that it does not know."""

    priority: int
    """A higher number goes first; 1 by default."""
    requirements: Requirements
    task_id: str
    idempotency_key: str
    """The same key makes no second task. The client makes one up where there is none."""
    name: str
    labels: Mapping[str, str]
    env: Mapping[str, str]
    secrets: Sequence[str]
    bundle: str
    artifacts: Sequence[str]
    depends_on: Sequence[str]
    on_disconnect: str
    limits: Limits
    timeout_seconds: float
    queue_timeout_seconds: float
    max_attempts: int
    retry_policy: RetryPolicy


def custom(program: str, *args: str, shell: bool = False) -> TaskSpec:
    """A task that runs a program; with ``shell`` it is a script for ``/bin/sh``."""
    config: dict[str, Any] = {"name": program, "args": list(args)}
    if shell:
        config["shell"] = True
    return {"type": "custom", "config": config}


def test(test_file: str, *args: str) -> TaskSpec:
    """A task that runs a test file, which its worker must see at that path."""
    return {"type": "test", "config": {"test_file": test_file, "test_args": list(args)}}


test.__test__ = False  # type: ignore[attr-defined]  # pytest is not to take it for a test


def benchmark(model: str, *, batch_sizes: Sequence[int] = (1,), precision: str = "fp32", iterations: int = 100) -> TaskSpec:
    """A task that times a model."""
    config = {"model": model, "batch_sizes": list(batch_sizes), "precision": precision, "iterations": iterations}
    return {"type": "benchmark", "config": config}


@dataclass(frozen=True)
class Submitted:
    """A task that is in the mesh: it is on the disks of a majority."""

    task_id: str
    created: bool
    """Whether it is new: false when it was there under its id or idempotency key."""
    message: str = ""


@dataclass(frozen=True)
class TaskSummary:
    """A task in a list."""

    task_id: str
    type: str
    status: str
    """pending, assigned, running, cancelling, completed, failed, timed_out or cancelled."""
    name: Optional[str]
    priority: int
    worker_id: Optional[str]
    """Who holds it, or held it last."""
    attempts: int
    created: Optional[datetime]
    started: Optional[datetime]
    ended: Optional[datetime]
    raw: JSON = field(repr=False, compare=False)

    @property
    def done(self) -> bool:
        """Whether it has ended, however it did."""
        return self.status in TERMINAL

    @property
    def ok(self) -> bool:
        """Whether it has completed."""
        return self.status == "completed"


@dataclass(frozen=True)
class Attempt:
    """One run of a task that has ended."""

    attempt: int
    worker_id: str
    status: str
    """completed, failed, timed_out, cancelled, lost or superseded."""
    start_time: Optional[datetime]
    end_time: Optional[datetime]
    execution_time_seconds: float
    error_message: Optional[str]
    cause: Optional[str]
    raw: JSON = field(repr=False, compare=False)


@dataclass(frozen=True)
class Task(TaskSummary):
    """A task in full."""

    config: JSON
    requirements: JSON
    labels: Mapping[str, str]
    result: Any
    """What the attempt that counts handed in; of programs an object with ``exit_code``, ``stdout`` and so on."""
    error: Optional[str]
    cause: Optional[str]
    history: tuple[Attempt, ...]
    """The attempts that have ended, oldest first."""


@dataclass(frozen=True)
class Worker:
    """A worker of the mesh."""

    worker_id: str
    hostname: str
    status: str
    """active, busy, draining, offline or quarantined."""
    reason: Optional[str]
    last_heartbeat: Optional[datetime]
    slots: int
    slots_used: int
    hardware: tuple[str, ...]
    capabilities: JSON
    """In full from :meth:`labmesh.Client.worker`, else the summary."""
    hardware_metrics: Optional[JSON]
    tags: Mapping[str, str]
    raw: JSON = field(repr=False, compare=False)


@dataclass(frozen=True)
class Status:
    """The mesh as the node that answers sees it."""

    version: str
    node_id: str
    mesh_id: str
    role: str
    leader: Optional[str]
    voters: tuple[str, ...]
    quorum: int
    workers: Mapping[str, int]
    tasks: Mapping[str, int]
    uptime: float
    warnings: tuple[str, ...]
    raw: JSON = field(repr=False, compare=False)


@dataclass(frozen=True)
class QueryResult:
    """The rows of a statement. Iterating it gives each row as a dictionary."""

    columns: tuple[str, ...]
    types: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    truncated: bool
    """There were more rows than asked for."""
    log_index: int
    """How far in the mesh's log the ledger was."""

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for row in self.rows:
            yield dict(zip(self.columns, row))

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class Artifact:
    """One file that an attempt left."""

    path: str
    """From the work directory, with slashes."""
    bytes: int
    executable: bool = False
    link: Optional[str] = None
    """Where it leads, if it is a symbolic link."""
    directory: bool = False
    """It is an empty directory."""


@dataclass(frozen=True)
class Artifacts:
    """The files that an attempt left."""

    task_id: str
    attempt: int
    """0 when no attempt left any."""
    bytes: int
    files: tuple[Artifact, ...]


def parse_time(text: Optional[str]) -> Optional[datetime]:
    """A moment as the API writes it, e.g. ``2026-11-23T21:59:29.000000Z``."""
    if text is None:
        return None
    whole, _, fraction = text.rstrip("Zz").partition(".")
    at = datetime.strptime(whole, "%Y-%m-%dT%H:%M:%S")
    return at.replace(microsecond=int((fraction + "000000")[:6]), tzinfo=timezone.utc)


def summary_of(said: JSON) -> TaskSummary:
    return TaskSummary(**_summary(said))


def _summary(said: JSON) -> dict[str, Any]:
    return {
        "task_id": said["task_id"],
        "type": said["type"],
        "status": said["status"],
        "name": said.get("name"),
        "priority": said.get("priority", 1),
        "worker_id": said.get("worker_id"),
        "attempts": said.get("attempts", 0),
        "created": parse_time(said.get("created")),
        "started": parse_time(said.get("started")),
        "ended": parse_time(said.get("ended")),
        "raw": said,
    }


def task_of(said: JSON) -> Task:
    return Task(
        **_summary(said),
        config=said.get("config") or {},
        requirements=said.get("requirements") or {},
        labels=said.get("labels") or {},
        result=said.get("result"),
        error=said.get("error"),
        cause=said.get("cause"),
        history=tuple(_attempt_of(a) for a in said.get("history") or ()),
    )


def _attempt_of(said: JSON) -> Attempt:
    return Attempt(
        attempt=said["attempt"],
        worker_id=said["worker_id"],
        status=said["status"],
        start_time=parse_time(said.get("start_time")),
        end_time=parse_time(said.get("end_time")),
        execution_time_seconds=said.get("execution_time_seconds") or 0.0,
        error_message=said.get("error_message"),
        cause=said.get("cause"),
        raw=said,
    )


def worker_of(said: JSON) -> Worker:
    summary = said.get("capabilities_summary") or {}
    return Worker(
        worker_id=said["worker_id"],
        hostname=said.get("hostname") or "",
        status=said["status"],
        reason=said.get("reason"),
        last_heartbeat=parse_time(said.get("last_heartbeat")),
        slots=said.get("slots", 0),
        slots_used=said.get("slots_used", 0),
        hardware=tuple(summary.get("hardware") or ()),
        capabilities=said.get("capabilities") or summary,
        hardware_metrics=said.get("hardware_metrics"),
        tags=said.get("tags") or {},
        raw=said,
    )


def status_of(said: JSON) -> Status:
    return Status(
        version=said["version"],
        node_id=said.get("node_id", ""),
        mesh_id=said.get("mesh_id", ""),
        role=said.get("role", ""),
        leader=said.get("leader"),
        voters=tuple(said.get("voters") or ()),
        quorum=said.get("quorum", 0),
        workers=said["workers"],
        tasks=said["tasks"],
        uptime=said["uptime"],
        warnings=tuple(said.get("warnings") or ()),
        raw=said,
    )


def query_of(said: JSON) -> QueryResult:
    return QueryResult(
        columns=tuple(said["columns"]),
        types=tuple(said["types"]),
        rows=tuple(tuple(row) for row in said["rows"]),
        truncated=bool(said.get("truncated")),
        log_index=said.get("log_index", 0),
    )


def artifacts_of(said: JSON) -> Artifacts:
    return Artifacts(
        task_id=said["task_id"],
        attempt=said["attempt"],
        bytes=said["bytes"],
        files=tuple(
            Artifact(
                path=f["path"],
                bytes=f.get("bytes", 0),
                executable=bool(f.get("executable")),
                link=f.get("link") or None,
                directory=bool(f.get("directory")),
            )
            for f in said.get("files") or ()
        ),
    )
